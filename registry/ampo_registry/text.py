"""Words for messages."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, choices: Iterable[str]) -> str:
    """The one of `choices` that `name` is probably a misspelling of, or "" if none is like it."""
    return next(iter(get_close_matches(name, list(choices), n=1)), "")
