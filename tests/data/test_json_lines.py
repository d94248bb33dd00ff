"""The one reader of JSON lines."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path

import pytest
from ampo_registry import DataError, RunError

from ampo_core.data.json_lines import json_lines, line_at

WHOLE = b'{"n": 1}\n\n{"n": "\xe2\x80\xa8\\r"}\n'
"""Two objects and a blank line; a text may hold what Python takes for ends of lines."""


def write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "some.jsonl"
    path.write_bytes(content)
    return path


def test_lines_with_their_places(tmp_path: Path) -> None:
    path = write(tmp_path, WHOLE + b'{"n": 3}')
    found = list(json_lines(path, itemgetter("n"), what="an n"))
    assert [(line.number, line.start, line.length, line.value) for line in found] == [
        (1, 0, 9, 1),
        (3, 10, 15, "\u2028\r"),
        (4, 25, 8, 3),
    ]
    with path.open("rb") as file:
        assert [line_at(file, line.start)["n"] for line in reversed(found)] == [3, "\u2028\r", 1]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"oops", "Expecting value: line 1 column 1"),
        (b"\x80ops", "'utf-8' codec can't decode"),
        (b"[1]", "found list"),
        (b'{"m": 1}', "it has no n"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path, line: bytes, reason: str) -> None:
    path = write(tmp_path, WHOLE + line + b"\n" + WHOLE)
    for leave_out in ("nothing", "torn", "last"):
        lines = json_lines(path, itemgetter("n"), what="an n", error=RunError, leave_out=leave_out, hint="; mend it")
        with pytest.raises(RunError, match=rf"some\.jsonl, line 4: not an n: {reason}.*; mend it$"):
            list(lines)
    with pytest.raises(DataError):
        list(json_lines(path, itemgetter("n"), what="an n"))


@pytest.mark.parametrize(("end", "left_out"), [(b"", ("torn", "last")), (b"\n", ("last",))])
def test_the_last_line_may_be_left_out(tmp_path: Path, end: bytes, left_out: tuple[str, ...]) -> None:
    path = write(tmp_path, WHOLE + b'{"n": 3, "te' + end)
    for leave_out in ("nothing", "torn", "last"):
        lines = json_lines(path, itemgetter("n"), what="an n", leave_out=leave_out)
        if leave_out in left_out:
            assert [line.value for line in lines] == [1, "\u2028\r"]
        else:
            with pytest.raises(DataError, match="line 4"):
                list(lines)
