"""Words for messages."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MAX_NAME = 200
"""Characters of a name that becomes a file or folder: most file systems take 255 bytes, endings included."""
FILE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
"""What such a name looks like."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """The one of `choices` that `name` is probably a misspelling of, whatever its case, or "" if none is like it."""
    by_lower = {choice.lower(): choice for choice in choices}
    return next((by_lower[found] for found in get_close_matches(name.lower(), list(by_lower), n=1)), "")


def a(noun: str) -> str:
    """`noun` behind its article: a selector, an intervention."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
