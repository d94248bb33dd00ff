"""What a run would refuse in the first rows of its files, found without torch and without reading the files whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from ampo_registry.errors import DataError

from ampo_core.checked.call import Asked
from ampo_core.config.data_files import DataRead, HubData, is_here
from ampo_core.config.nodes import Place, Problem, raise_problems
from ampo_core.config.references import is_filled_in
from ampo_core.data import hub
from ampo_core.data.contract import column, selected
from ampo_core.data.conversations import conversation
from ampo_core.data.layouts import RowReader, hint
from ampo_core.data.rows import ENDINGS, Row, RowFile, read_rows, row_file

FIRST = 64
"""Rows of a file that are looked at."""
VALUES = 8


def check_first_rows(reads: Iterable[tuple[Place, DataRead]]) -> list[str]:
    """Look at the first rows of all files that are here; returns warnings.

    Raises ConfigError with what a run would refuse, each with the place of the config that names the file.
    """
    problems: list[Problem] = []
    warnings: list[Problem] = []
    lists: list[list[tuple[Problem, bool]]] = []
    for place, read in reads:
        if not (lists and isinstance(at := read.path[-1], int) and lists[-1][-1][0].path == (*read.path[:-1], at - 1)):
            lists.append([])
        try:
            text, unused = _look_at(read)
        except DataError as error:
            text, unused = "", False
            problems.append(Problem(place, read.path, str(error)))
        lists[-1].append((Problem(place, read.path, text), unused))
    for found in lists:  # a run refuses files of which no question is left, all together
        refused = problems if all(unused for _, unused in found) else warnings
        refused += (problem for problem, _ in found if problem.text)
    raise_problems(problems)
    return list(dict.fromkeys(map(str, warnings)))


def _look_at(read: DataRead) -> tuple[str, bool]:
    """(what is to be said of the file, "" for nothing; whether no question of it is left, as far as is known)."""
    file = row_file(read.file)
    rows = list(islice(_first_rows(file), FIRST + 1))
    if isinstance(file, HubData) and not rows:
        here = not is_filled_in(file.hub) and is_here(file)
        return (f"{file}: its rows are not looked at before the run" if here else ""), False
    if isinstance(file, Path) and not rows and file.is_file():
        raise DataError(f"{file}: the file holds no row")
    reader = RowReader.of(read.layout, truths=read.format == "questions")
    left_out: list[str] = []
    used, unread = 0, ""
    judge = None if read.reward is None else Asked.of(read.reward)
    for number, row in rows[:FIRST]:
        if read.format == "messages":
            conversation(row.get("messages"), f"{file}, row {number}")
        elif selected(row, read.where, file, number):
            used += 1
            found = reader.read(row, file, number)
            if judge is not None and (why := judge.ask("check_row", found.raw)) is not None:
                raise DataError(f"{file}, row {number}: reward {judge.name} cannot judge it: {why}")
            if found.unusable is not None:
                unread = unread or hint(reader, row, file, number)
                left_out.append(f"{file}, row {number}: ground truth {found.answer!r} refused: {found.unusable}")
    # Of a data set of the Hub only the first of its files is looked at.
    whole = 0 < len(rows) <= FIRST and not isinstance(file, HubData)
    if read.where and not used and whole:
        return f"no question is left; where: {read.where}; {file} has {_values(read.where, rows)}", True
    if left_out and used == len(left_out):
        return f"{'no question' if whole else f'none of the first {used} rows'} is left{unread}\n{left_out[0]}", whole
    if left_out:
        return f"{len(left_out)} of the first {used} rows would be left out; the first of them:\n  {left_out[0]}", False
    return "", False


def _values(where: Iterable[str], rows: Iterable[tuple[int, Row]]) -> str:
    """What stands in the columns of a condition, each value once."""
    found = {name: dict.fromkeys(repr(column(row, name)) for _, row in rows) for name in where}
    return "; ".join(f"{name}: {', '.join(islice(values, VALUES))}" for name, values in found.items())


def _first_rows(file: RowFile) -> Iterator[tuple[int, Row]]:
    """The rows of `file` from the first on; none where it is not here yet, or not to be looked at."""
    if isinstance(file, HubData):
        found = None if is_filled_in(file.hub) else hub.first_rows(file)
        if found is None or (isinstance(found, Path) and found.suffix not in ENDINGS):
            return
        yield from read_rows(found, FIRST) if isinstance(found, Path) else enumerate(found, start=1)
    elif not is_filled_in(str(file)) and file.exists():
        yield from read_rows(file, FIRST)
