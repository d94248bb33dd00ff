"""The folder `checkpoints/` of a run: which stand there, which is the newest and the best, which are pruned.

    step-000050/     a checkpoint, whole: it is filled under another name, flushed to disk and then renamed
    best.json        {metric, value, step, checkpoint} of the best so far by `checkpoint.best`
    latest           name of the newest; written last, for people and scripts

What a checkpoint knows of the best so far stands in its own state.json, from which best.json is put right when a run
goes on: whatever moment a run dies at, the newest whole checkpoint is all that is needed. Only rank 0 uses this.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError, RunError

from ampo_core.config.run_names import STATE, step_name, step_of
from ampo_core.config.tree import CheckpointConfig
from ampo_core.run.disk import readable, remove, size_of
from ampo_core.run.files import flush, flush_tree, read_object, write_atomically, write_json

FORMAT = 1
"""Version of what a checkpoint holds."""


@dataclass(frozen=True, slots=True)
class CheckpointStore:
    """The checkpoints in `path`."""

    path: Path
    config: CheckpointConfig

    def begin(self, step: int) -> Path:
        """A fresh folder, `partial(step)`, to fill for the checkpoint of `step`; `commit` gives it its name."""
        final = self.path / step_name(step)
        if final.exists():
            raise RunError(f"checkpoint {final} exists already")
        partial = self.partial(step)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        return partial

    def partial(self, step: int) -> Path:
        """Where the checkpoint of `step` is filled."""
        return _partial(self.path / step_name(step))

    def room(self) -> str:
        """What a person should know of the room that checkpoints take, and of what there is to go on from."""
        whole = [path for path in self._steps() if is_whole(path)]
        if not whole:
            return ". There is no checkpoint before it: the run starts over then"
        at_once = self.config.keep + 1 + (self.config.best is not None)
        return (
            f". A checkpoint takes {readable(size_of(whole[-1]))}, and up to {at_once} stand there at once; "
            f"{whole[-1].name} is whole, and the run goes on there"
        )

    def commit(self, step: int, state: Mapping[str, Any], metrics: Mapping[str, float]) -> Path:
        """Complete the checkpoint of `step` with its state.json, give it its name, and prune old ones.

        Raises RunError if the disk refuses; what was there before is then untouched.
        """
        final = self.path / step_name(step)
        best = self._record(step, metrics) if self.is_best(metrics) else self.best()
        partial = _partial(final)
        write_json(partial / STATE, {"format": FORMAT, **state, "step": step, "best": best})
        flush_tree(partial)
        partial.rename(final)
        flush(self.path)
        if best is not None:
            write_atomically(self.path / "best.json", json.dumps(best) + "\n")
        write_atomically(self.path / "latest", final.name + "\n")
        self._prune()
        return final

    def is_best(self, metrics: Mapping[str, float]) -> bool:
        """True iff `metrics` has `checkpoint.best` (finite, higher is better) above that of every checkpoint so far."""
        value = metrics.get(self.config.best) if self.config.best else None
        if value is None or not math.isfinite(value):
            return False
        best = self.best()
        return best is None or best["metric"] != self.config.best or value > best["value"]

    def best(self) -> dict[str, Any] | None:
        """What best.json says, {metric, value, step, checkpoint}, or None so far."""
        path = self.path / "best.json"
        return read_object(path) if path.exists() else None

    def latest(self) -> Path | None:
        """The checkpoint that `latest` names, or None so far."""
        path = self.path / "latest"
        return self.path / path.read_text(encoding="utf-8").strip() if path.exists() else None

    def newest(self) -> Path | None:
        """The newest whole checkpoint, or None if the run has not come to one.

        Raises ConfigError if there are checkpoints and none of them is whole, if the newest is of a later release, or
        if a part of it is a link that leads out of this folder: DeepSpeed's files are pickles.
        """
        steps = self._steps()
        found = next((path for path in reversed(steps) if is_whole(path)), None)
        if steps and found is None:
            raise ConfigError(
                f"no checkpoint in {self.path} is whole ({', '.join(path.name for path in steps)}); a new run may "
                f"start from one of their weights with model.path: {steps[-1] / 'policy'}"
            )
        if found is not None:
            _check_own(found)
        if found is not None and (version := read_state(found)["format"]) != FORMAT:
            raise ConfigError(f"{found} is of format {version}, this release reads {FORMAT}: use the one that wrote it")
        return found

    def go_on_from(self, checkpoint: Path | None) -> None:
        """Put the folder in order for a run that goes on from `checkpoint`, or over again if None.

        What a crash left half-written goes, what is newer than `checkpoint`, and what it kept from being pruned.
        """
        if not self.path.exists():
            return
        self.sweep()
        best = read_state(checkpoint)["best"] if checkpoint is not None else None
        for path in self._steps():
            if checkpoint is None or step_of(path) > step_of(checkpoint):
                _remove(path)
        if best is None:
            (self.path / "best.json").unlink(missing_ok=True)
        else:
            write_atomically(self.path / "best.json", json.dumps(best) + "\n")
        if checkpoint is not None:
            write_atomically(self.path / "latest", checkpoint.name + "\n")
        self._prune()

    def sweep(self) -> None:
        """Remove what a crash has left half-written."""
        for leftover in self.path.glob(".*.partial"):
            remove(leftover)

    def _record(self, step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
        name = str(self.config.best)
        return {"metric": name, "value": metrics[name], "step": step, "checkpoint": step_name(step)}

    def _prune(self) -> None:
        best = self.best()
        for path in self._steps()[: -self.config.keep]:
            if best is None or path.name != best["checkpoint"]:
                _remove(path)

    def _steps(self) -> list[Path]:
        return sorted((path for path in self.path.glob("step-*") if path.is_dir()), key=step_of)


def is_whole(checkpoint: Path) -> bool:
    """True iff the folder has what a run needs to go on from it: its state, and the parts of every rank."""
    try:
        ranks = range(int(read_state(checkpoint)["world_size"]))
    except (ConfigError, KeyError, TypeError, ValueError):
        return False
    parts = [checkpoint / "policy", checkpoint / "deepspeed"]
    parts += [checkpoint / "ranks" / f"{rank}.{kind}" for rank in ranks for kind in ("pt", "json")]
    return all(part.exists() for part in parts)


def _check_own(checkpoint: Path) -> None:
    home = checkpoint.parent.resolve()
    for path in (checkpoint, *checkpoint.rglob("*")):
        if not path.resolve().is_relative_to(home):
            raise ConfigError(f"{path} leads to {path.resolve()}: a run goes on only from files of its own folder")


def read_state(checkpoint: Path) -> dict[str, Any]:
    """state.json of a checkpoint. Raises ConfigError if it cannot be read."""
    return read_object(checkpoint / STATE)


def _partial(final: Path) -> Path:
    return final.with_name(f".{final.name}.partial")


def _remove(checkpoint: Path) -> None:
    # Under its own name a folder is whole: it loses the name before it loses a file.
    doomed = _partial(checkpoint)
    shutil.rmtree(doomed, ignore_errors=True)
    checkpoint.rename(doomed)
    shutil.rmtree(doomed)
