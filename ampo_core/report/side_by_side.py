"""What several runs answered to the same question at the same step, and several models of evaluations.

Two lines are of the same question if they have the same uid, or where a run has other ones (another system prompt, say)
the same text and truth. What guidance put into a group stands apart: it is no answer of the run's, and does not count.
Files grow to gigabytes: each is read once, a line at a time, then the lines that are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError

from ampo_core.data.json_lines import json_lines, line_at
from ampo_core.report.html import paragraph
from ampo_core.report.marks import signed
from ampo_core.report.page import Section
from ampo_core.report.samples import MOST_ROWS, Row, prediction_row, training_row
from ampo_core.report.scores import Scores
from ampo_core.report.sources import Entry
from ampo_core.run.folder import SAMPLES

MOST_COLUMNS = 6
"""Runs or models side by side; the others are left out."""
MOST_IN_A_CELL = 3
MOST_PUT_IN = 2
"""Answers of teachers that a cell has besides."""
LONGEST_LABEL = 70
GOLDEN = 0.6180339887498949
"""Its multiples are spread over [0, 1) as evenly as can be."""
Where = tuple[str, str]
"""A set, empty in training, and a question."""
Record = Mapping[str, Any]
Lines = dict[Where, dict[int, list[tuple[int, bool]]]]


@dataclass(frozen=True, slots=True)
class Sides:
    """`columns` are (name, place among the runs that figures draw, None of a model); `places` what is shown of each
    question."""

    columns: Sequence[tuple[str, int | None]]
    places: Sequence[Mapping[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """What the page's script reads."""
        return {"columns": [list(column) for column in self.columns], "places": list(self.places)}


@dataclass(slots=True)
class _Column:
    """A run's or a model's file: question -> step (0 of an evaluation) -> where its lines begin, and who is right.

    `put_in` are the lines that guidance put into groups, `lines` the others.
    """

    name: str
    path: Path
    order: int | None
    lines: Lines = field(default_factory=dict)
    put_in: Lines = field(default_factory=dict)

    def add(self, where: Where, step: int, start: int, right: bool, *, own: bool = True) -> None:
        """A line of the file."""
        kept = self.lines if own else self.put_in
        kept.setdefault(where, {}).setdefault(step, []).append((start, right))

    def nearest(self, where: Where, step: int) -> int | None:
        """The step nearest to `step` at which the column has the question."""
        return min(self.lines.get(where, ()), key=lambda own: (abs(own - step), own), default=None)


@dataclass(slots=True)
class _Same:
    """Which lines are of the same question."""

    texts: dict[tuple[str, str, str], str] = field(default_factory=dict)
    uids: dict[str, str] = field(default_factory=dict)

    def where(self, record: Record) -> Where:
        part = str(record.get("set", ""))
        text = (part, str(record.get("prompt")), str(record.get("answer")))
        uid = str(record.get("uid") or text)
        if uid not in self.uids:
            known = uid if record.get("prompt") is None else self.texts.setdefault(text, uid)
            self.uids[uid] = known
        return part, self.uids[uid]


def rollouts_beside(entries: Sequence[Entry]) -> Sides | None:
    """The rollouts of the train runs among `entries` (of several seeds the first one's); None if there are not two, or
    no question stands in two of them. Raises ConfigError for a file that cannot be read."""
    columns = [
        (
            _Column(signed(entry.name, {entry.name: entry.patches}), entry.runs[0].path / SAMPLES, order),
            entry.runs[0].threshold,
        )
        for order, entry in enumerate(entries)
        if entry.job == "train" and (entry.runs[0].path / SAMPLES).is_file()
    ][:MOST_COLUMNS]
    same = _Same()
    for column, threshold in columns:
        for start, record in _read(column.path, "a sample"):
            right, own = float(record["reward"]) >= threshold, not record.get("teacher")
            column.add(same.where(record), int(record["step"]), start, right, own=own)
    return _beside([column for column, _ in columns], training_row)


def predictions_beside(entries: Sequence[Entry]) -> Sides | None:
    """The predictions of all models of the evaluate jobs `entries`, as `rollouts_beside`."""
    columns: list[_Column] = []
    same = _Same()
    for entry in entries:
        path, own = entry.runs[0].path / "predictions.jsonl", dict[str, _Column]()
        for start, record in _read(path, "a prediction") if path.is_file() else ():
            model = str(record["model"])
            column = own.setdefault(model, _Column(model, path, None))
            column.add(same.where(record), 0, start, bool(record["correct"]))
        scores = Scores.read(entry.runs[0].path, entry.name) if own else None
        for model, column in own.items():
            named = entry.name if len(own) == 1 else f"{entry.name}: {model}"
            name = named if len(entries) > 1 else model
            column.name = signed(name, {name: scores is not None and scores.changed.get(model)})
        columns += own.values()
    return _beside(columns[:MOST_COLUMNS], prediction_row)


def side_section(sides: Sides, id: str, title: str, when: str) -> Section:
    """The section whose picker the page's script fills from what it has as `id`."""
    several = f"{len(sides.places)} questions" if len(sides.places) > 1 else "one question"
    note = (
        f"Answers to the same question, {when}: {several}, as many as possible that all have, evenly spread. In the "
        f"list ✓ all are right, ◐ some, ✗ none, – there is none. At most {MOST_COLUMNS} columns."
    )
    return Section(id, title, paragraph(note) + f'<div class="sides" data-sides="{id}"></div>')


def _read(path: Path, what: str) -> Iterator[tuple[int, Record]]:
    try:
        for line in json_lines(path, dict, what=what, error=ConfigError, leave_out="torn"):
            yield line.start, line.value
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error!r}") from error


def _beside(columns: Sequence[_Column], row: Callable[[Record], Row]) -> Sides | None:
    in_a_cell = MOST_IN_A_CELL + (MOST_PUT_IN if any(column.put_in for column in columns) else 0)
    chosen = _chosen(columns, MOST_ROWS // max(1, len(columns) * in_a_cell))
    places = [_place(columns, where, step, row) for where, step in chosen]
    return Sides([(column.name, column.order) for column in columns], places) if places else None


def _chosen(columns: Sequence[_Column], most: int) -> list[tuple[Where, int]]:
    """At most `most` (question, step), in order of sets and steps: those that the most columns have, at the very step
    before at one near it; of equal ones some evenly spread."""
    having = Counter(where for column in columns for where in column.lines)
    ranked: dict[tuple[int, int], list[tuple[Where, int]]] = {}
    for where, count in having.items():
        if count > 1:
            steps = Counter(step for column in columns for step in column.lines.get(where, ()))
            exact = max(steps.values())
            best = [step for step, found in steps.items() if found == exact]
            if exact == 1:
                best = [min(best, key=lambda step: (_apart(columns, where, step), step))]
            ranked.setdefault((count, exact), []).extend((where, step) for step in best)
    chosen: list[tuple[Where, int]] = []
    for _, found in sorted(ranked.items(), reverse=True):
        found.sort(key=lambda item: (item[0][0], item[1]))
        left = most - len(chosen)
        chosen += found if len(found) <= left else [found[i] for i in _spread(len(found), left)]
    return sorted(chosen, key=lambda item: (item[0][0], item[1]))


def _spread(count: int, most: int) -> list[int]:
    """`most` of `count` places, one in each of equal stretches, now at its beginning, now further on: where batches are
    as long as a stretch, the same place in each would be the same kind of question."""
    return [int((i + i * GOLDEN % 1.0) * count / most) for i in range(most)]


def _apart(columns: Sequence[_Column], where: Where, step: int) -> int:
    """How many steps the columns' nearest ones are away from `step`, together."""
    steps = (column.nearest(where, step) for column in columns)
    return sum(abs(own - step) for own in steps if own is not None)


def _place(columns: Sequence[_Column], where: Where, step: int, row: Callable[[Record], Row]) -> dict[str, Any]:
    """A question with the rows of each column, those that guidance put in last, and how many of its own are right."""
    cells: list[list[Row]] = []
    counts, put_in, question, truth = [], [], None, None
    for column in columns:
        nearest = column.nearest(where, step)
        own, others = (
            [] if nearest is None else kept.get(where, {}).get(nearest, []) for kept in (column.lines, column.put_in)
        )
        counts.append([sum(right for _, right in own), len(own)])
        put_in.append(len(others))
        cells.append([])
        try:
            with column.path.open("rb") as file:
                for start, right in (*own[:MOST_IN_A_CELL], *others[:MOST_PUT_IN]):
                    item = row(line_at(file, start))
                    question, truth = question or item["question"], truth or item["truth"]
                    said, read = {"question": None, "truth": None}, item["read"]
                    if read in (other["read"] for other in cells[-1]):
                        said["read"] = None  # once is enough of what all of a cell were read from
                    cells[-1].append({**item, **said, "correct": right})
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{column.path} cannot be read: {error!r}") from error
    place = where[0] or f"step {step}"
    label = f"{''.join(map(_sign, counts))} {place} · {' '.join(str(question or where[1]).split())}"
    short = label if len(label) <= LONGEST_LABEL else label[:LONGEST_LABEL] + "…"
    found = {"label": short, "question": question, "truth": truth}
    return {**found, "counts": counts, "put_in": put_in, "cells": cells}


def _sign(count: Sequence[int]) -> str:
    right, all_there = count
    if not all_there:
        return "–"
    return "✓" if right == all_there else "✗" if not right else "◐"
