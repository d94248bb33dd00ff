"""Rows of files and of data sets of the Hub, one at a time, with the number a person finds them by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ampo_registry.errors import DataError
from ampo_registry.text import nearest

from ampo_core.config.data_files import HubData
from ampo_core.data import hub
from ampo_core.data.json_lines import json_lines
from ampo_core.data.tables import csv_rows, json_rows, with_short_floats

if TYPE_CHECKING:
    import pyarrow as pa

Row = Mapping[str, Any]
RowFile = Path | HubData
"""A file of rows, or a data set that stands for one."""
BATCH_ROWS = 1024
ENDINGS = (".parquet", ".jsonl", ".json", ".csv")


def row_file(said: str | Path | HubData) -> RowFile:
    """What a config names, as what is read."""
    return said if isinstance(said, HubData) else Path(said)


def read_rows(path: RowFile, batch: int = BATCH_ROWS) -> Iterator[tuple[int, Row]]:
    """(number from 1, row) for each row of `path`; the number of a JSONL row is its line. So many as a `batch` has are
    read at once where files are read by the batch.

    Raises DataError for a missing or unreadable file, a wrong ending, a line that is no JSON object.
    """
    if isinstance(path, HubData):
        yield from hub.rows(path, batch)
        return
    if not path.is_file():
        raise DataError(f"{path}: no such data file{_nearest(path)}")
    if path.suffix not in ENDINGS:
        listed = f"{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"
        raise DataError(f"{path}: a data file ends in {listed}, not in {path.suffix!r}")
    if path.suffix == ".parquet":
        yield from _parquet_rows(path, batch)
        return
    try:
        if path.suffix == ".jsonl":
            for line in json_lines(path, dict, what="a JSON object"):
                yield line.number, line.value
        else:
            yield from csv_rows(path) if path.suffix == ".csv" else json_rows(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def count_rows(path: RowFile) -> int:
    """How many rows `path` has, or lines, blank ones included, so that it can be said how much of it is read; 0 where
    that is not known before."""
    if isinstance(path, HubData):
        return hub.count(path)
    if path.suffix == ".json":
        return 0
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return int(pq.read_metadata(path).num_rows)
    with path.open("rb") as file:
        return sum(part.count(b"\n") for part in iter(lambda: file.read(1 << 20), b""))


def file_hash(path: RowFile) -> str:
    """SHA-256 of the file's bytes, in hex; of a data set's rows."""
    if isinstance(path, HubData):
        return hub.sha256(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parquet_rows(path: Path, batch_rows: int) -> Iterator[tuple[int, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            short = [field.name for field in file.schema_arrow if pa.types.is_float32(field.type)]
            for batch in file.iter_batches(batch_size=batch_rows):
                for row in _rows_of(batch, path, number):
                    number += 1
                    yield number, with_short_floats(row, short)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as Parquet after row {number}: {error}") from error


def _rows_of(batch: pa.RecordBatch, path: Path, before: int) -> list[dict[str, Any]]:
    """The rows of `batch`, whose first one has the number `before` + 1."""
    try:
        return list(batch.to_pylist())
    except Exception:  # values that Python has no form for: the row that brings one is named
        rows: list[dict[str, Any]] = []
        for index in range(len(batch)):
            try:
                rows += batch.slice(index, 1).to_pylist()
            except Exception as error:
                raise DataError(f"{path}, row {before + index + 1}: not readable: {error}") from error
        return rows


def _nearest(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (there is no folder {path.parent})"
    near = nearest(path.name, (file.name for file in path.parent.iterdir()))
    return f"; did you mean {path.parent / near}?" if near else ""
