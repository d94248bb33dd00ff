"""How files are written so that a crash, or a disk that is full, never leaves half of one in the place of a whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError, RunError


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to `path` so that a reader finds the old file or the new one, whole, even after a crash."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    flush(path.parent)


def write_json(path: Path, value: object) -> None:
    """Write `value` atomically as indented JSON. Raises ValueError for a number that is not finite."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def append_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Append one JSON object a line. Raises RunError where the disk refuses."""
    lines = [json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records]
    try:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(lines)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error}") from error


def cut_back(path: Path, step: int) -> int:
    """Take the lines of steps after `step`, and a last one that is not whole, out of a JSON-lines file.

    Returns how many lines went. The file is replaced atomically, and left alone if all of it may stay. Raises
    ConfigError for a line that cannot be read and is not the last: no crash leaves one.
    """
    if not path.exists():
        return 0
    partial = path.with_name(f".{path.name}.partial")
    cut = 0
    try:
        with path.open("rb") as old, partial.open("wb") as new:
            for line, stays in _judged(path, old, step):
                cut += not stays
                if stays:
                    new.write(line.rstrip(b"\n") + b"\n")
            new.flush()
            os.fsync(new.fileno())
        if cut:
            partial.replace(path)
            flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)
    return cut


def _judged(path: Path, lines: Iterable[bytes], step: int) -> Iterator[tuple[bytes, bool]]:
    """Each line with whether it may stay."""
    unreadable = 0
    for number, line in enumerate(lines, start=1):
        if unreadable:
            raise ConfigError(f"{path}, line {unreadable}: not a JSON object with a step; mend or remove that line")
        try:
            stays = bool(json.loads(line)["step"] <= step)
        except (ValueError, TypeError, KeyError):
            stays, unreadable = False, number
        yield line, stays


def flush_tree(folder: Path) -> None:
    """Have everything in `folder` on the disk."""
    for path in folder.rglob("*"):
        flush(path)
    flush(folder)


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
