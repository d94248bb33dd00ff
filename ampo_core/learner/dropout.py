"""No dropout in the checkpoint's own layers, nor a router's jitter, which are there in training only.

With them the ratio π_θ/π_old would not be 1 before the first update. What can be turned off is; a model that still
computes something else in training is refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from ampo_registry.errors import ConfigError
from torch import nn

PASSES = 3
"""Forward passes in training mode that are compared: what drops whole layers may miss one."""
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
COARSE_TOLERANCE = 1e-2
"""Nats a token, of half precision: kernels that add in any order differ by their last bits."""


@dataclass(frozen=True, slots=True)
class Dropout:
    """What the configs of a model said of dropout before it was turned off: (config, option, its value)."""

    options: tuple[tuple[Any, str, float], ...]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """A block in which the configs say it again, for what is saved is to keep it."""
        for config, name, value in self.options:
            setattr(config, name, value)
        try:
            yield
        finally:
            for config, name, _ in self.options:
                setattr(config, name, 0.0)


def disable_dropout(model: nn.Module) -> Dropout:
    """Set every dropout of `model` to 0: of modules made for it, of numbers that a module keeps and hands on
    (`self.dropout`, `layerdrop`, `attn_pdrop`, a router's `jitter_noise`, …), and of configs that are read in each
    forward."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name in _numbers(module):
            setattr(module, name, 0.0)
    configs = {id(config): config for module in model.modules() if (config := getattr(module, "config", None))}
    options = [(config, name, getattr(config, name)) for config in configs.values() for name in _numbers(config)]
    for config, name, _ in options:
        setattr(config, name, 0.0)
    return Dropout(tuple(options))


def _numbers(owner: object) -> list[str]:
    """Its attributes that are a probability of dropping something, or a router's noise."""
    return [
        name
        for name, value in vars(owner).items()
        if ("drop" in name or "jitter" in name) and type(value) is float and value > 0.0
    ]


def refuse_other_mode(model: nn.Module, forward: Callable[[], torch.Tensor], path: str) -> None:
    """Compare `forward()`, log-probs [tokens] without gradient, in evaluation and in training mode of `model`.

    Leaves the mode and all random numbers as they were. Raises ConfigError, which names what may be to blame, if they
    differ by more than rounding.
    """
    training = model.training
    devices = [value.device.index or 0 for value in list(model.parameters())[:1] if value.is_cuda]
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        model.eval()
        still = forward()
        model.train()
        moved = [forward() for _ in range(PASSES)]
    model.train(training)
    gap = max(float((other - still).nan_to_num(0.0).abs().max()) for other in moved)  # a broken model is not this one
    limit = TOLERANCE.get(next(model.parameters()).dtype, COARSE_TOLERANCE)
    if gap > limit:
        raise ConfigError(
            f"model.path: {path} gives other log-probs in training than in evaluation, by up to {gap:.2g} nats a token "
            "before any update, and what makes the difference could not be turned off. Look at "
            + (", ".join(_of_training_only(model)) or "its code")
            + " for dropout or noise, and turn it off in its config.json"
        )


def _of_training_only(model: nn.Module) -> list[str]:
    """Names of the classes in `model` whose forward asks for the mode, but for PyTorch's own and dropouts."""
    found = set()
    for kind in {type(module) for module in model.modules()}:
        if kind.__module__.startswith("torch."):
            continue
        try:
            source = inspect.getsource(kind.forward)
        except (OSError, TypeError):
            continue
        if "self.training" in source:
            found.add(kind.__name__)
    return sorted(found)
