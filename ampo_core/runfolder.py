"""The folder of a run: what is in it, and how it is written so that a crash never leaves half a checkpoint.

    runs/NAME/config.yaml        the resolved config
              manifest.json      what it ran with (see manifest.py)
              metrics.jsonl      one JSON object a line; a number that is not finite is null
              samples.jsonl      one JSON object a rollout
              checkpoints/       step-000050/policy/ …, best.json, latest
              done               JSON: the run is finished, and where its output lies

Only rank 0 writes here.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError, RunError
from ampo_registry.types import GroupReport

from ampo_core.config.tree import CheckpointConfig, RunConfig

POLICY_SOURCE = "policy"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run's files. `path` is `run.dir`/`run.name`."""

    path: Path
    checkpoint: CheckpointConfig

    @classmethod
    def create(
        cls, run: RunConfig, yaml: str, manifest: Mapping[str, Any], checkpoint: CheckpointConfig | None = None
    ) -> RunFolder:
        """Make the folder with config.yaml and manifest.json.

        Raises ConfigError if the folder exists and is not empty, or cannot be made.
        """
        path = Path(run.dir) / run.name
        check_free(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot make the run folder {path}: {error.strerror}") from error
        write_atomically(path / "config.yaml", yaml)
        write_atomically(path / "manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        return cls(path, checkpoint or CheckpointConfig(best=None))

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line to metrics.jsonl: `step`, then the metrics by name."""
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items() if name != "step"}
        _append(self.path / "metrics.jsonl", [{"step": step, **finite}])

    def log_samples(self, step: int, groups: Sequence[GroupReport], limit: int) -> None:
        """Append at most `limit` rollouts to samples.jsonl, of as many questions as possible.

        Up to half of them are teacher answers, for those are what one wants to look at.
        """
        slots = [(group, slot) for slot in range(_widest(groups)) for group in groups if slot < len(group.texts)]
        teachers = [item for item in slots if item[0].sources[item[1]] != POLICY_SOURCE]
        students = [item for item in slots if item[0].sources[item[1]] == POLICY_SOURCE]
        guided = teachers[: max(limit // 2, limit - len(students))]
        _append(
            self.path / "samples.jsonl",
            [_sample(step, group, slot) for group, slot in guided + students[: limit - len(guided)]],
        )

    @property
    def checkpoints(self) -> Path:
        """The folder of all checkpoints."""
        return self.path / "checkpoints"

    def save_checkpoint(self, step: int, write: Callable[[Path], None], metrics: Mapping[str, float]) -> Path:
        """Write checkpoints/step-NNNNNN and return it; `write` fills the folder it is given (policy/ and more).

        `write` gets a temporary folder beside the final one, which is flushed to disk and renamed when `write`
        returns; `latest` is written after that, and only then are old checkpoints pruned. Raises RunError if the
        checkpoint exists already or the disk refuses.
        """
        final = self.checkpoints / step_name(step)
        if final.exists():
            raise RunError(f"checkpoint {final} exists already")
        partial = self.checkpoints / f".{final.name}.partial"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            write(partial)
            _flush_tree(partial)
            partial.rename(final)
            _flush(self.checkpoints)
            if self.is_best(metrics):
                self._record_best(step, metrics)
            write_atomically(self.checkpoints / "latest", final.name + "\n")
            self._prune()
        except OSError as error:
            raise RunError(f"cannot write checkpoint {final}: {error}") from error
        return final

    def is_best(self, metrics: Mapping[str, float]) -> bool:
        """True iff `metrics` has `checkpoint.best` (finite, higher is better) above that of every checkpoint so far."""
        value = metrics.get(self.checkpoint.best) if self.checkpoint.best else None
        if value is None or not math.isfinite(value):
            return False
        best = self.best()
        return best is None or value > best["value"]

    def best(self) -> dict[str, Any] | None:
        """What best.json says, {metric, value, step, checkpoint}, or None so far."""
        path = self.checkpoints / "best.json"
        found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        return found

    def latest(self) -> Path | None:
        """The newest complete checkpoint, or None so far."""
        path = self.checkpoints / "latest"
        return self.checkpoints / path.read_text(encoding="utf-8").strip() if path.exists() else None

    def finish(self, output: Path | None = None) -> Path:
        """Write the `done` marker and return the run's output: `output` (policy/, a data folder) or the run folder."""
        output = output or self.path
        write_atomically(self.path / "done", json.dumps({"output": os.path.relpath(output, self.path)}) + "\n")
        return output

    def _record_best(self, step: int, metrics: Mapping[str, float]) -> None:
        name = str(self.checkpoint.best)
        record = {"metric": name, "value": metrics[name], "step": step, "checkpoint": step_name(step)}
        write_atomically(self.checkpoints / "best.json", json.dumps(record) + "\n")

    def _prune(self) -> None:
        best = self.best()
        steps = sorted(self.checkpoints.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))
        for path in steps[: -self.checkpoint.keep]:
            if best is None or path.name != best["checkpoint"]:
                shutil.rmtree(path)


def step_name(step: int) -> str:
    """The folder name of a step's checkpoint: step-000050."""
    return f"step-{step:06d}"


def check_free(path: Path) -> None:
    """Raise ConfigError if `path` holds a run, or anything else; an empty folder is free."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not path.is_dir():
        raise ConfigError(f"{path} is a file; a run needs a folder: choose another run.name or run.dir")
    state = "a finished run" if (path / "done").exists() else "an unfinished run"
    found = state if (path / "config.yaml").exists() else "other files"
    raise ConfigError(
        f"{path} holds {found}; this release does not resume: choose another run.name or run.dir, or remove the folder"
    )


def finished_output(path: Path) -> Path | None:
    """The output of the run in `path` if its `done` marker stands, else None."""
    marker = path / "done"
    if not marker.exists():
        return None
    return Path(os.path.normpath(path / json.loads(marker.read_text(encoding="utf-8"))["output"]))


def discard_unfinished(path: Path) -> bool:
    """Remove the folder of a run that has started and not finished; True if there was one.

    A folder that is not a run's (no config.yaml) is left alone. Raises RunError if the run is finished.
    """
    if (path / "done").exists():
        raise RunError(f"{path} holds a finished run, which is not removed")
    if not (path / "config.yaml").exists():
        return False
    shutil.rmtree(path)
    return True


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to `path` so that a reader finds the old file or the new one, whole, even after a crash."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    _flush(path.parent)


def _append(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    with path.open("a", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")


def _sample(step: int, group: GroupReport, slot: int) -> dict[str, Any]:
    source, score = group.sources[slot], group.scores[slot]
    from_teacher = source != POLICY_SOURCE
    return {
        "step": step,
        "uid": group.question.uid,
        "dataset": group.question.source,
        "prompt": group.question.messages[-1].content,
        "answer": group.question.answer,
        "text": group.texts[slot],
        "reward": group.rewards[slot],
        "source": "teacher" if from_teacher else POLICY_SOURCE,
        "teacher": source if from_teacher else None,
        "score": score if score is None or math.isfinite(score) else None,
    }


def _widest(groups: Sequence[GroupReport]) -> int:
    return max((len(group.texts) for group in groups), default=0)


def _flush_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        _flush(path)
    _flush(folder)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
