"""Files that hold one JSON object a line, read a line at a time: they grow to gigabytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Generic, Literal, TypeVar

from ampo_registry.errors import AmpoError, DataError

T = TypeVar("T")
LeaveOut = Literal["nothing", "torn", "last"]
"""What need not be read. torn: a last line without its newline, as a crash or a writer at work leaves it; last: any
last line."""


@dataclass(frozen=True, slots=True)
class Line(Generic[T]):
    """A line of a file: its number from 1, its first byte, its length in bytes with the newline, and what it holds."""

    number: int
    start: int
    length: int
    value: T


def json_lines(
    path: Path,
    parse: Callable[[dict[str, Any]], T],
    *,
    what: str,
    error: type[AmpoError] = DataError,
    leave_out: LeaveOut = "nothing",
    hint: str = "",
) -> Iterator[Line[T]]:
    """Each line with what `parse` makes of its object; blank ones are passed over.

    Raises `error`, which names file and line, says that it is not `what` and why, and ends with `hint`, where a line
    holds no JSON object or `parse` raises ValueError, TypeError or KeyError, unless `leave_out` lets it pass. Errors
    of the disk pass through.
    """
    unread: AmpoError | None = None
    end = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            start, end = end, end + len(line)
            if unread is not None:
                raise unread
            if not line.strip():
                continue
            try:
                value = parse(_object(line))
            except (ValueError, TypeError, KeyError, RecursionError) as cause:
                unread = error(f"{path}, line {number}: not {what}: {_reason(cause)}{hint}")
                if leave_out == "nothing" or (leave_out == "torn" and line.endswith(b"\n")):
                    raise unread from cause
            else:
                yield Line(number, start, len(line), value)


def line_at(file: BinaryIO, start: int) -> dict[str, Any]:
    """The object of the line that begins at byte `start` of a file that `json_lines` has been through."""
    file.seek(start)
    return _object(file.readline())


def _object(line: bytes) -> dict[str, Any]:
    found = json.loads(line)
    if not isinstance(found, dict):
        raise TypeError(f"found {type(found).__name__}")
    return found


def _reason(cause: Exception) -> str:
    return f"it has no {cause.args[0]}" if isinstance(cause, KeyError) else str(cause)
