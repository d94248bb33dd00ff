"""The folder of a run: what is in it, and who may write there.

    runs/NAME/config.yaml        the resolved config
              manifest.json      what it ran with (see manifest.py)
              history/           config and manifest as they were before a run went on with changed ones, and
                                 changes.jsonl: which changes were allowed (see history.py)
              metrics.jsonl      one JSON object a line; a number that is not finite is null
              samples.jsonl      one JSON object a rollout
              checkpoints/       step-000050/, best.json, latest (see checkpoint_store.py)
              done               JSON: the run is finished, and where its output lies

Only rank 0 writes here, but for its part of a checkpoint.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError, RunError
from ampo_registry.samples import OFF_POLICY, ON_POLICY
from ampo_registry.tokens import TokenIds
from ampo_registry.types import GroupReport

from ampo_core.config.run_names import step_name
from ampo_core.config.tree import RunConfig
from ampo_core.run.changes import config_changes, manifest_changes, read_manifest
from ampo_core.run.disk import refusal, writing
from ampo_core.run.files import append_lines, cut_back, flush, write_atomically, write_json
from ampo_core.run.history import HISTORY, mark, unmark
from ampo_core.run.lock import LOCK, check_not_held

POLICY_SOURCE = "policy"
UNMADE = {LOCK, "manifest.json", ".manifest.json.partial", ".config.yaml.partial"}
METRICS, SAMPLES = "metrics.jsonl", "samples.jsonl"
Shown = Callable[[TokenIds], str]
"""The text of a prompt, special tokens and all."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run's files. `path` is `run.dir`/`run.name`."""

    path: Path

    @classmethod
    def create(cls, run: RunConfig, yaml: str, manifest: Mapping[str, Any]) -> RunFolder:
        """Make the folder with config.yaml and manifest.json. Its lock is held by then (`lock.py`).

        Raises ConfigError if the folder exists and is not empty, or cannot be made.
        """
        path = run.folder
        _refuse_others(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot make the run folder {path}: {refusal(path, error)}") from error
        folder = cls(path)
        folder._describe(yaml, manifest)
        return folder

    @classmethod
    def reopen(
        cls,
        path: Path,
        yaml: str,
        manifest: Mapping[str, Any],
        config: Mapping[str, Any],
        step: int,
        *,
        anew: bool = False,
    ) -> RunFolder:
        """The folder of a run that goes on after `step`: later lines and the `done` marker go.

        `config` is `yaml` in JSON types. Where it or `manifest` differs from what is in the folder, the old files
        move to history/ under the step's name; what may change a result leaves a mark there, but in a run that
        starts over (`anew`), of which nothing stays.
        """
        folder = cls(path)
        try:
            changes = [*config_changes(path, config), *manifest_changes(path, manifest)]
            if changes or read_manifest(path) != dict(manifest):
                folder._keep_history(step)
                if changes and not anew:
                    mark(path, step, changes)
                folder._describe(yaml, manifest)
            if anew:
                unmark(path)
            (path / "done").unlink(missing_ok=True)
            for name in (METRICS, SAMPLES):
                # The evaluation of the start model is step 0: a run that starts over makes it anew.
                cut_back(path / name, step or -1)
        except OSError as error:
            raise RunError(f"cannot go on in {path}: {refusal(path, error)}") from error
        return folder

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line to metrics.jsonl: `step`, then the metrics by name."""
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items() if name != "step"}
        append_lines(self.path / METRICS, [{"step": step, **finite}])

    def log_samples(self, step: int, groups: Sequence[GroupReport], limit: int, shown: Shown) -> None:
        """Append at most `limit` rollouts to samples.jsonl, of as many questions as possible.

        Up to half of them are teacher answers, for those are what one wants to look at.
        """
        slots = [(group, slot) for slot in range(_widest(groups)) for group in groups if slot < len(group.texts)]
        teachers = [item for item in slots if item[0].sources[item[1]] != POLICY_SOURCE]
        students = [item for item in slots if item[0].sources[item[1]] == POLICY_SOURCE]
        guided = teachers[: max(limit // 2, limit - len(students))]
        append_lines(
            self.path / SAMPLES,
            [_sample(step, group, slot, shown) for group, slot in guided + students[: limit - len(guided)]],
        )

    def flush_lines(self) -> None:
        """Have the lines so far on the disk: a checkpoint stands for all steps up to its own."""
        for path in (self.path / METRICS, self.path / SAMPLES):
            with writing(path):
                if path.exists():
                    flush(path)

    @property
    def checkpoints(self) -> Path:
        """The folder of all checkpoints."""
        return self.path / "checkpoints"

    def finish(self, output: Path | None = None) -> Path:
        """Write the `done` marker and return the run's output: `output` (policy/, a data folder) or the run folder."""
        output = output or self.path
        write_atomically(self.path / "done", json.dumps({"output": os.path.relpath(output, self.path)}) + "\n")
        return output

    def _describe(self, yaml: str, manifest: Mapping[str, Any]) -> None:
        # In this order: config.yaml is what tells a run's folder from others.
        write_json(self.path / "manifest.json", manifest)
        write_atomically(self.path / "config.yaml", yaml)

    def _keep_history(self, step: int) -> None:
        history = self.path / HISTORY
        history.mkdir(exist_ok=True)
        count = len(list(history.glob(f"config.{step_name(step)}*.yaml")))
        name = step_name(step) + (f".{count + 1}" if count else "")
        for old, kept in (("config.yaml", f"config.{name}.yaml"), ("manifest.json", f"manifest.{name}.json")):
            write_atomically(history / kept, (self.path / old).read_text(encoding="utf-8"))


def check_free(path: Path) -> None:
    """Raise ConfigError if `path` holds a run, or anything else, or another process is at it; an empty folder is free.

    So is one of a run that died while it made its folder.
    """
    if path.is_dir():
        check_not_held(path)
    _refuse_others(path)


def _refuse_others(path: Path) -> None:
    if not path.exists() or (path.is_dir() and {item.name for item in path.iterdir()} <= UNMADE):
        return
    if not path.is_dir():
        raise ConfigError(f"{path} is a file; a run needs a folder: choose another run.name or run.dir")
    state = "a finished run" if (path / "done").exists() else "an unfinished run"
    found = state if (path / "config.yaml").exists() else "other files"
    raise ConfigError(f"{path} holds {found}: choose another run.name or run.dir, or remove the folder")


def discard_unfinished(path: Path) -> bool:
    """Remove all but the lock of a run that has started and not finished; True if there was one.

    A folder that is not a run's (no config.yaml) is left alone. Raises RunError if the run is finished.
    """
    if (path / "done").exists():
        raise RunError(f"{path} holds a finished run, which is not removed")
    if not (path / "config.yaml").exists():
        return False
    # config.yaml last: as long as it stands this is a run's folder
    for item in sorted(path.iterdir(), key=lambda item: item.name == "config.yaml"):
        if item.name == LOCK:
            continue
        shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()
    return True


def _sample(step: int, group: GroupReport, slot: int, shown: Shown) -> dict[str, Any]:
    """The line of a slot; `segments` and `given` only of a sample that is not one segment of its source's own term,
    `trained_under` only where that is not what was read."""
    source, score = group.sources[slot], group.scores[slot]
    from_teacher = source != POLICY_SOURCE
    segments = group.segments[slot] if group.segments else ()
    plain = [term for term, _ in segments] in ([], [OFF_POLICY if from_teacher else ON_POLICY])
    given = group.given[slot] if group.given else 0
    read, prompt = (group.read[slot], group.prompts[slot]) if group.read else (None, None)
    return {
        "step": step,
        "uid": group.question.uid,
        "dataset": group.question.source,
        "prompt": group.question.messages[-1].content,
        **({} if read is None else {"read": shown(read)}),
        **({} if prompt is None or prompt == read else {"trained_under": shown(prompt)}),
        "answer": group.question.answer,
        "text": group.texts[slot],
        "reward": group.rewards[slot],
        "source": "teacher" if from_teacher else POLICY_SOURCE,
        "teacher": source if from_teacher else None,
        "score": score if score is None or math.isfinite(score) else None,
        **({} if plain else {"segments": [list(segment) for segment in segments]}),
        **({"given": given} if given else {}),
    }


def _widest(groups: Sequence[GroupReport]) -> int:
    return max((len(group.texts) for group in groups), default=0)


@contextmanager
def begun() -> Iterator[None]:
    """Have no error say that nothing was started."""
    try:
        yield
    except ConfigError as error:
        raise RunError(str(error)) from error
