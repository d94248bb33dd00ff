"""Checkpoints: all that a run needs to go on as if it had never stopped.

    step-000050/policy/        the weights in Hugging Face format, with their model card
                deepspeed/     the learner: weights, optimizer, its step count; a part of each rank
                ranks/N.pt     random number generators of rank N (Python, NumPy, PyTorch)
                ranks/N.json   the components' memory on rank N
                state.json     step, place in the stream of questions, policy version, best so far, trackers, format

Writing and loading one are collective acts: every rank calls them at the same step.
"""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ampo_registry.errors import RunError
from ampo_registry.protocols import JsonValue, Stateful

from ampo_core.config.run_names import step_name
from ampo_core.data.tokens import PromptTokenizer
from ampo_core.distributed.ranks import Ranks
from ampo_core.distributed.together import by_each, by_first
from ampo_core.learner.learner import Learner
from ampo_core.run.checkpoint_store import CheckpointStore, read_state
from ampo_core.run.disk import writing
from ampo_core.run.files import read_object, write_atomically


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run stands: after `step`, with `taken` questions of the stream used up."""

    step: int = 0
    taken: int = 0
    policy_version: int = 0


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Writes the checkpoints of a run. `store` is used on rank 0 only, and so is `card`, which writes the model card
    of a step into its policy folder."""

    store: CheckpointStore
    ranks: Ranks
    card: Callable[[int, Path], None] | None = None

    def path_of(self, step: int) -> Path:
        """The folder of the checkpoint of `step`."""
        return self.store.path / step_name(step)

    def due(self, step: int, metrics: Mapping[str, float], *, last: bool) -> bool:
        """True on every rank if a checkpoint belongs after `step`; rank 0 decides."""
        every = self.store.config.every
        due = last or (every is not None and step % every == 0)
        return by_first(self.ranks, lambda: due or self.store.is_best(metrics))

    def save(
        self,
        position: Position,
        learner: Learner,
        tokenizer: PromptTokenizer,
        components: Stateful | None,
        metrics: Mapping[str, float],
        trackers: Callable[[], Mapping[str, Any]],
    ) -> None:
        """Write the checkpoint of `position.step`; `metrics` are that step's.

        Raises RunError if the disk refuses: what was written of it is removed, the checkpoints before are untouched.
        """
        final = self.path_of(position.step)
        memory = components.state_dict() if components is not None else {}
        # inside each act too, or the other ranks would hear of an error that says less
        guarded = partial(writing, final, self.store.partial(position.step), hint=self.store.room)
        with guarded():
            folder = by_first(self.ranks, guarded()(lambda: self.store.begin(position.step)))
            by_each(self.ranks, guarded()(lambda: _write_rank(folder, self.ranks.rank, memory)))
            learner.save_state(folder / "deepspeed")
            learner.save_policy(folder / "policy", tokenizer)
            if self.card is not None:
                by_first(self.ranks, partial(self.card, position.step, folder / "policy"))
            state = {**asdict(position), "world_size": self.ranks.world_size}
            commit = partial(self.store.commit, position.step, metrics=metrics)
            by_first(self.ranks, guarded()(lambda: commit({**state, "trackers": trackers()})))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A whole checkpoint to go on from."""

    path: Path
    ranks: Ranks

    def load(self, learner: Learner, components: Stateful | None) -> Position:
        """Put the learner and the components' memory back; returns where the run stands. `restore_rng` comes last."""
        learner.load_state(self.path / "deepspeed")
        memory: dict[str, JsonValue] = read_object(self.path / "ranks" / f"{self.ranks.rank}.json", error=RunError)
        if components is not None:
            components.load_state_dict(memory)
        state = read_state(self.path)
        return Position(state["step"], state["taken"], state["policy_version"])

    def restore_rng(self) -> None:
        """Put the random number generators back, after everything that may have drawn from them while it started."""
        path = self.path / "ranks" / f"{self.ranks.rank}.pt"
        try:
            _set_rng(torch.load(path, weights_only=True))
        except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"cannot read the random number generators in {path}: {error}") from error


def _write_rank(checkpoint: Path, rank: int, memory: Mapping[str, JsonValue]) -> None:
    folder = checkpoint / "ranks"
    if not checkpoint.is_dir():
        raise RunError(f"rank {rank} does not see {checkpoint}: run.dir must be on a disk that all nodes share")
    folder.mkdir(exist_ok=True)
    try:
        write_atomically(folder / f"{rank}.json", json.dumps(memory, ensure_ascii=False, allow_nan=False) + "\n")
    except (TypeError, ValueError) as error:
        raise RunError(f"a component's state_dict() is not JSON: {error}") from error
    torch.save(_rng(), folder / f"{rank}.pt")


def _rng() -> dict[str, Any]:
    """The state of every generator, as tensors and plain numbers, for these load without pickle."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
        "numpy": {
            "kind": str(kind),
            "keys": torch.tensor(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def _set_rng(state: Mapping[str, Any]) -> None:
    python, numpy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    keys = numpy["keys"].numpy().astype(np.uint32)
    np.random.set_state((numpy["kind"], keys, numpy["position"], numpy["has_gauss"], numpy["cached"]))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
