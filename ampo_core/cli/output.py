"""What the screen can show: an encoding without a character escapes it, and ends nothing."""

from __future__ import annotations

import codecs
import io
import sys


def accept_any_text() -> None:
    """Let stdout and stderr write what their encoding does not have as `\\xe9`, where Python would raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def shows_unicode() -> bool:
    """True iff stdout has every character; else what is to be read back must escape them itself."""
    return codecs.lookup(getattr(sys.stdout, "encoding", None) or "utf-8").name.startswith("utf")
