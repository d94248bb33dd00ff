"""Rows of CSV files and of JSON files that hold a list, read as they come: nothing needs the whole file at once."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from ampo_registry.errors import DataError

from ampo_core.data.json_lines import json_lines

CHARACTERS = 2**20
"""So many are read at a time of a JSON file; an object may be longer."""
_BLANKS = " \t\r\n"


def csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, row) of each row below the header; all cells are text, an empty one is None, and one that is a
    list of {role, content} in JSON is that list.

    Raises DataError that names the row, and the line it ends on, for what is no CSV; OSError where the disk fails.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a C long, of 32 bits on some systems
    number = 0
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, None)
            if header is None:
                return
            header = [name.strip() for name in header]
            _check_header(path, header)
            for cells in reader:
                if not cells:  # a blank line
                    continue
                number += 1
                if len(cells) != len(header):
                    counts = f"{len(cells)} cell{'s' if len(cells) > 1 else ''}, and the header has {len(header)}"
                    raise DataError(f"{path}, row {number} (line {reader.line_num}): {counts}")
                yield number, {name: _cell(text) for name, text in zip(header, cells, strict=True)}
        except csv.Error as error:
            raise DataError(f"{path}, row {number + 1} (line {reader.line_num}): not CSV: {error}") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{path}, after row {number}: not UTF-8 text; save it as UTF-8") from error


def _cell(text: str) -> str | list[Any] | None:
    if not text.startswith("[") or '"role"' not in text:
        return text or None
    try:
        turns = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return turns if all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in turns) else text


def with_short_floats(row: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """`row` whose columns `names` hold numbers of 32 bits: each in its shortest form, 0.1 for 0.10000000149011612."""
    if names:
        import numpy as np

        row.update({name: float(str(np.float32(row[name]))) for name in names if isinstance(row[name], float)})
    return row


def _check_header(path: Path, header: list[str]) -> None:
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise DataError(f"{path}: the header names the column {twice[0]!r} more than once: {', '.join(header)}")
    other = next((sign for sign in ";\t|" if sign in header[0]), None) if len(header) == 1 else None
    if other is not None:
        raise DataError(
            f"{path}: the header is one column, {header[0]!r}: cells are separated by commas, not {other!r}"
        )


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, object) of each object of a list; of a file that has one object a line instead, (line, object).

    Raises DataError that names the row for what is neither; OSError where the disk fails.
    """
    number = 0
    with path.open(encoding="utf-8-sig") as file:
        try:
            items = _Items(file)
            if not items.opens_list():
                yield from _lines(path)
                return
            for number, item in enumerate(items, start=1):
                if not isinstance(item, dict):
                    raise DataError(f"{path}, row {number}: not a JSON object: found {type(item).__name__}")
                yield number, item
        except UnicodeDecodeError as error:
            raise DataError(f"{path}, after row {number}: not UTF-8 text; save it as UTF-8") from error
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise DataError(f"{path}, row {number + 1}: not JSON: {reason}") from error


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    hint = "; a .json file holds a list of objects, or one object a line"
    for line in json_lines(path, dict, what="a JSON object", hint=hint):
        yield line.number, line.value


class _Items:
    """The items of a list in JSON, decoded one after the other."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._text, self._at, self._ended = file, "", 0, False
        self._decoder = json.JSONDecoder()

    def opens_list(self) -> bool:
        """Whether the text begins with a list; goes into it."""
        if self._peek() != "[":
            return False
        self._at += 1
        return True

    def __iter__(self) -> Iterator[Any]:
        sign = self._peek()
        while sign != "]":
            self._peek()
            yield self._item()
            sign = self._peek()
            if sign not in (",", "]"):
                raise ValueError(f"expected ',' or ']' behind the item before, found {sign or 'the end of the file'!r}")
            self._at += sign == ","
        self._at += 1
        if sign := self._peek():
            raise ValueError(f"found {sign!r} behind the end of the list")

    def _item(self) -> Any:
        """The next item. What looks wrong may only not have been read to its end: a number, even a whole one."""
        while True:
            try:
                item, end = self._decoder.raw_decode(self._text, self._at)
            except ValueError:
                if not self._read(len(self._text)):
                    raise
                continue
            if end < len(self._text) or not self._read(CHARACTERS):
                self._at = end
                return item

    def _peek(self) -> str:
        """The next character that is no blank, "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANKS:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read(CHARACTERS):
                return ""

    def _read(self, characters: int) -> bool:
        """Read on, at least as much as is asked for; what has been decoded is dropped. False at the end of the file."""
        more = self._file.read(max(characters, CHARACTERS))
        self._text, self._at = self._text[self._at :] + more, 0
        return bool(more)
