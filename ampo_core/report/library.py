"""The plotting library inside a page: plotly.js, as the plotly distribution brings it, compressed."""

from __future__ import annotations

import base64
import gzip
import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from ampo_registry.errors import RunError


@dataclass(frozen=True, slots=True)
class Library:
    """The bundle as base64 of gzip (40 % of its size), the hash that a policy allows it by, and its version."""

    packed: str
    hash: str
    version: str


@lru_cache(maxsize=1)
def plotting_library() -> Library:
    """The installed plotly's bundle, read from its file: importing plotly would take longer than the report.

    Raises RunError if plotly is not installed.
    """
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        raise RunError("a report needs the package plotly, which is not installed: pip install plotly")
    text = Path(spec.origin).with_name("package_data").joinpath("plotly.min.js").read_bytes()
    version = re.search(rb"plotly\.js v([\d.]+)", text[:400])
    packed = base64.b64encode(gzip.compress(text, 6, mtime=0)).decode("ascii")
    return Library(packed, script_hash(text), version[1].decode("ascii") if version else "unknown")


def script_hash(text: bytes) -> str:
    """What stands for a script in `script-src` of a Content-Security-Policy."""
    return f"sha256-{base64.b64encode(sha256(text).digest()).decode('ascii')}"
