"""Rows of data sets of the Hugging Face Hub, and of folders laid out like one, through the package `datasets`.

It is imported only where a config names such a data set, and nothing else goes to the network. Data sets are files;
code of theirs is never run, for the package runs none.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ampo_registry.errors import DataError

from ampo_core.config.data_files import HubData, cached_tables, is_commit
from ampo_core.data.tables import with_short_floats

HASHED_ROWS = 1024
FEW = 64


def rows(data: HubData, batch: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(number from 1, row) for each row. Raises DataError where the data set cannot be loaded, in words."""
    yield from enumerate(_rows_of(_loaded(data), batch), start=1)


def _rows_of(loaded: Any, batch: int) -> Iterator[dict[str, Any]]:
    """The rows as the package gives them: a column of values of several kinds is kept as JSON, and read from it."""
    for name, feature in loaded.features.items():
        if getattr(feature, "decode", False) and type(feature).__name__ != "Json":  # an image stays bytes and a path
            loaded = loaded.cast_column(name, replace(feature, decode=False))
    short = [name for name, feature in loaded.features.items() if getattr(feature, "dtype", None) == "float32"]
    for columns in loaded.iter(batch_size=batch):
        for values in zip(*columns.values(), strict=True):
            yield with_short_floats(dict(zip(columns, values, strict=True)), short)


def count(data: HubData) -> int:
    """How many rows there are."""
    return int(_loaded(data).num_rows)


def sha256(data: HubData) -> str:
    """SHA-256 (hex) of the rows, whatever files they stand in: the same data set read anew has the same."""
    loaded = _loaded(data)
    return _hash(data, f"{loaded._fingerprint} {loaded.cache_files}")


@lru_cache(maxsize=16)
def _hash(data: HubData, loaded: str) -> str:
    """The hash of `data` as it was `loaded`: the package's fingerprint of it, and where it keeps it."""
    digest = hashlib.sha256()
    for _, row in rows(data, HASHED_ROWS):
        digest.update(json.dumps(row, sort_keys=True, default=repr).encode("ascii") + b"\n")
    return digest.hexdigest()


def first_rows(data: HubData) -> Iterator[Mapping[str, Any]] | Path | None:
    """The first rows of `data`, or a file that begins with them, without reading more or asking the Hub; None where
    it is not on this machine, or where its split is but a part of one."""
    if re.fullmatch(r"\w+(\.\w+)*", data.split) is None:
        return None
    if not Path(data.hub).is_dir():
        if data.revision and not is_commit(data.revision):
            return None
        names = re.compile(rf".*-{re.escape(data.split)}(-\d+-of-\d+)?")
        table = next((path for path in cached_tables(data) if names.fullmatch(path.stem)), None)
        return None if table is None else _of_table(table)
    with _in_words(data):
        _check_revision(data)
        files = _files_of_folder(data)
        if files and data.split not in files:
            raise ValueError(f"Unknown split {data.split!r}. Should be one of {sorted(files)}")
    found = next((Path(file) for file in files.get(data.split, ())), None)
    return found if found is not None and found.is_file() else None


def _files_of_folder(data: HubData) -> dict[str, list[str]]:
    """The files of each split of a folder in the Hub's layout."""
    found = _datasets().load_dataset_builder(data.hub, data.config).config.data_files
    return {str(split): list(map(str, files)) for split, files in (found or {}).items()}


def _of_table(path: Path) -> Iterator[Mapping[str, Any]]:
    yield from _rows_of(_datasets().Dataset.from_file(str(path)), FEW)


def _check_revision(data: HubData) -> None:
    """Raises DataError for a revision of a folder, which has none."""
    if data.revision is not None:
        raise DataError(f"{data}: {data.hub} is a folder, and a folder has no revision; leave revision away")


def _loaded(data: HubData) -> Any:
    """The data set. A process asks the Hub for it once: its rows, their number and their hash are of one revision."""
    stamp = None
    with _in_words(data):
        if Path(data.hub).is_dir():
            _check_revision(data)
            files = [file for files in _files_of_folder(data).values() for file in files]
            stamps = [
                (file, os.stat(file).st_size, os.stat(file).st_mtime_ns) for file in files if os.path.isfile(file)
            ]
            stamp = hashlib.sha256(repr(stamps).encode(errors="backslashreplace")).hexdigest()[:16]
        return _load(data, stamp)


@lru_cache(maxsize=16)
def _load(data: HubData, stamp: str | None) -> Any:
    """`stamp` is of a folder's files: what the package keeps of a folder it takes for current, whatever has changed."""
    datasets = _datasets()
    kept = None if stamp is None else str(Path(datasets.config.HF_DATASETS_CACHE) / "of-folders" / stamp)
    return datasets.load_dataset(data.hub, data.config, split=data.split, revision=data.revision, cache_dir=kept)


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"the package datasets cannot be imported: {error}; pip install 'ampo-rl[data]'") from error
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    return datasets


@contextmanager
def _in_words(data: HubData) -> Iterator[None]:
    """Errors of whatever kind become a DataError that names the data set."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise DataError(f"{data}: cannot be loaded: {' '.join(lines[:2])}") from error
