"""The marks of changes that --allow-changes let pass, in words: nobody shall take such a run for a clean one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ampo_registry.errors import ConfigError

from ampo_core.report.budget import TRAINED
from ampo_core.report.lineage import lineage
from ampo_core.report.settings import as_text
from ampo_core.run.changes import Change, read_manifest
from ampo_core.run.history import WentOn, marks_of

SIGN = "†"
WENT_ON = "Went on with changes that were allowed (--allow-changes)"
MOST_KEYS, LONGEST = 12, 160
"""Changed keys that a sentence names, and characters of a value."""


def patches(folder: Path, step: int | None = None) -> list[str]:
    """A sentence for each time that the run in `folder` went on with allowed changes, up to `step`; then those of the
    runs whose checkpoints it started from. Empty for a clean run.

    Raises ConfigError where a file of the run itself cannot be read; a run before it that is gone says nothing.
    """
    steps = read_manifest(folder).get("job") in TRAINED
    found = [_sentence(item, steps) for item in marks_of(folder) if step is None or item.step < step]
    return [*found, *(_of_those_before(folder) if steps else ())]


def _of_those_before(folder: Path) -> Iterator[str]:
    try:
        runs = lineage(folder).runs[1:]
    except ConfigError:  # which what it spent says
        return
    for before, last in runs:
        try:
            marks = marks_of(before)
        except ConfigError as error:
            yield f"made from {before.name}, whose changes cannot be read: {error}"
            continue
        for item in marks:
            if last is None or item.step < last:
                yield f"made from {before.name}, which went on {_sentence(item, steps=True)}"


def signed(name: str, marked: Mapping[str, object]) -> str:
    """`name`, with the sign behind it if it stands in `marked`."""
    return f"{name} {SIGN}" if marked.get(name) else name


def footnotes(marked: Mapping[str, Sequence[str]]) -> list[str]:
    """A note for each of those in `marked`: what the sign behind it stands for."""
    return [
        f"{SIGN} {name} went on with allowed changes: {'; '.join(lines)}" for name, lines in marked.items() if lines
    ]


def _sentence(item: WentOn, steps: bool) -> str:
    after = f"after step {item.step}" if steps else "after an interruption"
    when = "" if item.time is None else f" ({item.time[:16].replace('T', ' ')} UTC)"
    left = len(item.changes) - MOST_KEYS
    more = [f"and {left} more (history/changes.jsonl)"] if left > 0 else []
    return f"{after}{when}: " + ", ".join([*_named(item.changes[:MOST_KEYS]), *more])


def _named(changes: Iterable[Change]) -> Iterator[str]:
    for key, before, after in changes:
        old, new = (
            text if len(text := as_text(value)) <= LONGEST else text[:LONGEST] + "…" for value in (before, after)
        )
        yield f"{key} {old} → {new}"
