"""The marks of --allow-changes: what a run went on with that it had not begun with, after which step and when.

    history/changes.jsonl   a line each time: {step, time, changes: [[dotted key, before, after], ...]}

A run of an older release has no such file; its marks are the differences between the files in its history/, without a
time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from ampo_registry.errors import ConfigError

from ampo_core.data.json_lines import json_lines
from ampo_core.run.changes import (
    Change,
    config_differences,
    manifest_differences,
    parse_config,
    parse_manifest,
    read_config,
    read_manifest,
)
from ampo_core.run.files import write_atomically

HISTORY, CHANGES = "history", "changes.jsonl"
_KEPT = re.compile(r"config\.step-(\d+)(?:\.(\d+))?\.yaml")


@dataclass(frozen=True, slots=True)
class WentOn:
    """A run went on after `step` (0 of a job without steps) with `changes`, at `time` (UTC, ISO 8601)."""

    step: int
    time: str | None
    changes: tuple[Change, ...]


def marks_of(folder: Path) -> list[WentOn]:
    """The changes that the run in `folder` went on with, the first ones first. Raises ConfigError for a bad file."""
    path = folder / HISTORY / CHANGES
    if not path.is_file():
        return list(_from_kept_files(folder)) if path.parent.is_dir() else []
    try:
        return [line.value for line in json_lines(path, _mark, what="a change", error=ConfigError)]
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def mark(folder: Path, step: int, changes: Sequence[Change]) -> None:
    """Note that the run in `folder`, whose history/ is there, goes on after `step` with `changes`.

    What a start that died has noted is not noted twice. Raises OSError where the disk refuses.
    """
    now = WentOn(step, datetime.now(UTC).isoformat(timespec="seconds"), tuple(changes))
    marks = marks_of(folder)
    if marks and (marks[-1].step, _json(marks[-1].changes)) == (step, _json(now.changes)):
        marks.pop()
    _write(folder, [*marks, now])


def unmark(folder: Path) -> None:
    """Take the marks off a run that starts over, of which nothing stays. Raises OSError where the disk refuses."""
    if (folder / HISTORY).is_dir():
        _write(folder, [])


def _write(folder: Path, marks: Sequence[WentOn]) -> None:
    records = [{"step": item.step, "time": item.time, "changes": item.changes} for item in marks]
    write_atomically(folder / HISTORY / CHANGES, "".join(_json(record) + "\n" for record in records))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _mark(record: dict[str, object]) -> WentOn:
    step, time, changes = record["step"], record["time"], record["changes"]
    if not isinstance(step, int) or not isinstance(changes, list):
        raise TypeError("step is no whole number, or changes is no list")
    named = tuple((str(key), before, after) for key, before, after in changes)
    return WentOn(step, None if time is None else str(time), named)


def _from_kept_files(folder: Path) -> Iterator[WentOn]:
    """What an older release left: config and manifest as they were before each time."""
    found = [(match, path) for path in (folder / HISTORY).iterdir() if (match := _KEPT.fullmatch(path.name))]
    kept = {(int(match[1]), int(match[2] or 1)): path for match, path in found}
    job, now = read_manifest(folder).get("job"), (read_config(folder), read_manifest(folder))
    before = []
    for (step, _), path in sorted(kept.items()):
        if step > 0 or job not in ("train", "sft"):  # these start over at 0, and nothing of them stays
            manifest = path.with_name(path.name.replace("config.", "manifest.", 1).replace(".yaml", ".json"))
            before.append((step, (parse_config(path), parse_manifest(manifest))))
    for (step, old), (_, new) in pairwise([*before, (0, now)]):
        changes = (*config_differences(old[0], new[0]), *manifest_differences(old[1], new[1]))
        if changes:
            yield WentOn(step, None, changes)
