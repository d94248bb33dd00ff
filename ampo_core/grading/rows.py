"""How the rows of questions reach the workers: once a question, not with each of its responses.

The rows of a call stand in a file that workers read as they need them; a request says where. So it does not matter
which worker gets which response, and one that is started anew reads what it needs again.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from ampo_registry.errors import RunError
from ampo_registry.types import FinishReason, GradeRequest

KEPT = 16
"""Rows that a worker keeps: the responses of a question come one after the other."""


@dataclass(frozen=True, slots=True)
class Row:
    """What a request says of its question beside the answer, as bytes; and their SHA-256."""

    data: bytes
    digest: bytes


Place = tuple[str, int, int]
"""Where a row stands: file, first byte, number of bytes."""
Parcel = tuple[str, str, str, str, FinishReason, Place | None]
"""A request as it travels: text, answer, source, uid, finish reason, and where its row is; None if it has none. Plain
types, for an object of a data class takes eight times as long to pickle and to read."""


def rows_of(requests: Sequence[GradeRequest]) -> list[Row | None]:
    """The row of each request, None where it has none; requests that hold the same objects share theirs.

    Raises RunError for a row that cannot be sent to another process.
    """
    known: dict[tuple[object, ...], Row | None] = {}
    rows = []
    for request in requests:
        key = (id(request.messages), *request.extra, *map(id, request.extra.values()))
        if key not in known:
            known[key] = _row(request) if request.messages or request.extra else None
        rows.append(known[key])
    return rows


@contextmanager
def parcels(requests: Sequence[GradeRequest], rows: Sequence[Row | None]) -> Iterator[list[Parcel]]:
    """The requests as they travel; the file with their `rows` is there until the end."""
    different = {row.digest: row for row in rows if row is not None}
    if not different:
        yield [_parcel(request, None) for request in requests]
        return
    handle, file = tempfile.mkstemp(prefix="ampo-rows-")
    try:
        places = _written(handle, file, list(different.values()))
        yield [
            _parcel(request, None if row is None else places[row.digest])
            for request, row in zip(requests, rows, strict=True)
        ]
    finally:
        os.unlink(file)


def unpacked(parcel: Parcel) -> GradeRequest:
    """The request with its row, a copy of its own: what a reward does to it reaches no other response."""
    text, answer, source, uid, finish_reason, place = parcel
    messages, extra = ((), {}) if place is None else pickle.loads(_read(place))  # noqa: S301 - the parent's own bytes
    return GradeRequest(text, answer, source, uid, messages, extra, finish_reason)


def _parcel(request: GradeRequest, place: Place | None) -> Parcel:
    return request.text, request.answer, request.source, request.uid, request.finish_reason, place


def _row(request: GradeRequest) -> Row:
    try:
        data = pickle.dumps((request.messages, request.extra))
    except Exception as error:
        raise RunError(f"question {request.uid[:12]}: its row cannot be sent to a worker process: {error}") from error
    return Row(data, hashlib.sha256(data).digest())


def _written(handle: int, file: str, rows: Sequence[Row]) -> dict[bytes, Place]:
    """Write the file; the place of each row by its digest."""
    places: dict[bytes, Place] = {}
    try:
        with os.fdopen(handle, "wb") as out:
            for row in rows:
                places[row.digest] = (file, out.tell(), out.write(row.data))
    except OSError as error:
        raise RunError(f"{file}: cannot write the rows that the grading workers read: {error.strerror}") from error
    return places


@lru_cache(maxsize=KEPT)
def _read(place: Place) -> bytes:
    path, start, length = place
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(length)
