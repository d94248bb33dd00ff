"""What a weight sync must bring: every parameter of the model, under the names and in the shapes of its checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import torch
from ampo_registry import RunError
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ModelParameters:
    """Shapes by Hugging Face name; `tied` gives for each name all names of the same parameter, itself included."""

    shapes: dict[str, tuple[int, ...]]
    tied: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, model_path: str, *, trust_remote_code: bool) -> ModelParameters:
        """Those of the causal LM at `model_path`, from its config alone: no weight is read."""
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.from_pretrained(model_path, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)  # type: ignore[no-untyped-call]
        model.tie_weights()
        names: dict[int, list[str]] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name)
            shapes[name] = tuple(parameter.shape)
        return cls(shapes, {name: tuple(group) for group in names.values() for name in group})


@dataclass(slots=True)
class CheckedWeights:
    """An iterable of (name, tensor) that passes `weights` on one by one, each as a copy in `dtype` (None: its own).

    A tied parameter goes out under each of its names, for vLLM keeps the old head in silence if it gets the embedding
    alone. The copy outlives the next item: a partitioned parameter is gathered for one item only, and vLLM holds on to
    tensors until their layer is whole.
    Raises RunError for an unknown name, a wrong shape, tied names with different values, or, at the end, a parameter
    that did not come.
    """

    weights: Iterable[tuple[str, Tensor]]
    parameters: ModelParameters
    dtype: torch.dtype | None
    _sums: dict[str, float] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name, value in self.weights:
            self._check(name, value)
            total = float(value.detach().sum(dtype=torch.float64))
            if name in self._sums:
                self._check_again(name, total)
                continue
            aliases = self.parameters.tied[name]
            self._sums.update(dict.fromkeys(aliases, total))
            fresh = value.detach().to(dtype=self.dtype or value.dtype, copy=True)
            for alias in aliases:
                yield alias, fresh
        missing = [name for name in self.parameters.shapes if name not in self._sums]
        if missing:
            raise RunError(f"weight sync: {len(missing)} parameters did not come, first {missing[0]}")

    def _check(self, name: str, value: Tensor) -> None:
        shape = self.parameters.shapes.get(name)
        if shape is None:
            near = get_close_matches(name, self.parameters.shapes, n=1)
            raise RunError(f"weight sync: the model has no {name}" + (f"; nearest: {near[0]}" if near else ""))
        if tuple(value.shape) != shape:
            raise RunError(f"weight sync: {name} is {tuple(value.shape)}, the model's {shape}")

    def _check_again(self, name: str, total: float) -> None:
        before = self._sums[name]
        # Two nan are a diverged model, not two values.
        if before != total and not (before != before and total != total):
            others = " and ".join(alias for alias in self.parameters.tied[name] if alias != name)
            raise RunError(f"weight sync: {name} and {others} are tied in the model and came with other values")
