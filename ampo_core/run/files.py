"""How a run's files are read, and written so that no crash or full disk leaves half of one in the place of a whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ampo_registry.errors import AmpoError, ConfigError

from ampo_core.data.json_lines import Line, json_lines
from ampo_core.run.disk import remove, writing


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to `path` so that a reader finds the old file or the new one, whole, even after a crash.

    Raises OSError, which names `path`, where the disk refuses.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        remove(partial)
        error.filename = str(path)
        raise
    flush(path.parent)


def write_json(path: Path, value: object) -> None:
    """Write `value` atomically as indented JSON. Raises ValueError for a number that is not finite."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_object(path: Path, *, error: type[AmpoError] = ConfigError, hint: str = "") -> dict[str, Any]:
    """The JSON object in a file. Raises `error`, whose text ends with `hint`, if it cannot be read or is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise error(f"{path} cannot be read: {cause}{hint}") from cause
    if not isinstance(found, dict):
        raise error(f"{path} is not a JSON object{hint}")
    return found


def append_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Append one JSON object a line. Raises RunError where the disk refuses."""
    lines = [json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records]
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.writelines(lines)


def metrics_lines(path: Path) -> Iterator[Line[dict[str, Any]]]:
    """The lines of a metrics.jsonl, `step` an integer in each; one that is just being written is left out.

    Raises ConfigError for any other that cannot be read.
    """

    def stepped(record: dict[str, Any]) -> dict[str, Any]:
        return {**record, "step": int(record["step"])}

    return json_lines(path, stepped, what="a JSON object with a step", error=ConfigError, leave_out="torn")


def cut_back(path: Path, step: int) -> None:
    """Take the lines of steps after `step`, and a last one that cannot be read, out of a JSON-lines file.

    Raises ConfigError for another line that cannot be read: no crash leaves one.
    """
    if not path.exists():
        return

    def stays(record: Mapping[str, Any]) -> bool:
        return bool(record["step"] <= step)

    what, hint = "a JSON object with a step", "; mend or remove that line"
    lines = json_lines(path, stays, what=what, error=ConfigError, leave_out="last", hint=hint)
    keep_lines(path, [(line.start, line.length) for line in lines if line.value])


def keep_lines(path: Path, places: Sequence[tuple[int, int]]) -> None:
    """Leave only the lines at `places` (first byte, length in bytes) in a file, each ended by a newline.

    The file is replaced atomically, and left alone if they are all of it.
    """
    with path.open("rb") as old:
        size = old.seek(0, os.SEEK_END)
        old.seek(max(0, size - 1))
        if sum(length for _, length in places) == size and old.read() in (b"", b"\n"):
            return
        partial = path.with_name(f".{path.name}.partial")
        with writing(path, partial), partial.open("wb") as new:
            for start, length in places:
                old.seek(start)
                new.write(old.read(length).rstrip(b"\n") + b"\n")
            new.flush()
            os.fsync(new.fileno())
    partial.replace(path)
    flush(path.parent)


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
