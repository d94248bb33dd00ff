"""Messages between two processes: a line of JSON, and after it the bytes of its buffers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import IO, Any


def send(stream: IO[bytes], message: Mapping[str, Any], data: Sequence[bytes] = ()) -> None:
    """Write `message`, in JSON types, and `data`."""
    header = {"message": message, "sizes": [len(part) for part in data]}
    stream.write(json.dumps(header).encode() + b"\n" + b"".join(data))
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], list[bytes]] | None:
    """The next message and its data; None once the other side is gone."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    header = json.loads(line)
    data = [stream.read(size) for size in header["sizes"]]
    if [len(part) for part in data] != header["sizes"]:
        return None
    return header["message"], data
