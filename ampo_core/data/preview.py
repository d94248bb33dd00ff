"""What a run would refuse in the first rows of its files, found without torch and without reading the files whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from ampo_registry.errors import DataError

from ampo_core.config.data_files import DataRead, HubData
from ampo_core.config.nodes import Place, Problem, raise_problems
from ampo_core.config.references import is_filled_in
from ampo_core.data import hub
from ampo_core.data.contract import selected
from ampo_core.data.conversations import conversation
from ampo_core.data.layouts import RowReader
from ampo_core.data.rows import ENDINGS, Row, RowFile, read_rows, row_file

FIRST = 64
"""Rows of a file that are looked at."""


def check_first_rows(reads: Iterable[tuple[Place, DataRead]]) -> list[str]:
    """Look at the first rows of all files that are here; returns warnings.

    Raises ConfigError with what a run would refuse, each with the place of the config that names the file.
    """
    problems: list[Problem] = []
    warnings: list[Problem] = []
    for place, read in reads:
        try:
            warnings += (Problem(place, read.path, text) for text in _look_at(read))
        except DataError as error:
            problems.append(Problem(place, read.path, str(error)))
    raise_problems(problems)
    return list(dict.fromkeys(map(str, warnings)))


def _look_at(read: DataRead) -> Iterator[str]:
    file = row_file(read.file)
    rows = list(islice(_first_rows(file), FIRST + 1))
    if not rows and not isinstance(file, HubData) and file.is_file():
        raise DataError(f"{file}: the file holds no row")
    whole = len(rows) <= FIRST
    left_out: list[str] = []
    used = 0
    for number, row in rows[:FIRST]:
        if read.format == "messages":
            conversation(row.get("messages"), f"{file}, row {number}")
        elif selected(row, read.where, file, number):
            used += 1
            found = RowReader.of(read.layout, truths=read.format == "questions").read(row, file, number)
            if found.unusable is not None:
                left_out.append(f"{file}, row {number}: ground truth {found.answer!r} refused: {found.unusable}")
    if left_out and whole and used == len(left_out):
        raise DataError(f"no question is left\n{left_out[0]}")
    if left_out:
        yield f"{len(left_out)} of the first {used} rows would be left out; the first of them:\n  {left_out[0]}"


def _first_rows(file: RowFile) -> Iterator[tuple[int, Row]]:
    """The rows of `file` from the first on; none where it is not here yet, or not to be looked at."""
    if isinstance(file, HubData):
        found = None if is_filled_in(file.hub) else hub.first_rows(file)
        if found is None or (isinstance(found, Path) and found.suffix not in ENDINGS):
            return
        yield from read_rows(found, FIRST) if isinstance(found, Path) else enumerate(found, start=1)
    elif not is_filled_in(str(file)) and file.exists():
        yield from read_rows(file, FIRST)
