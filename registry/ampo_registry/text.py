"""Words for messages, and what is found in texts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

MAX_NAME = 200
"""Characters of a name that becomes a file or folder: most file systems take 255 bytes, endings included."""
FILE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
"""What such a name looks like."""
_BOX = re.compile(r"\\boxed\{")
_ANY_BOX = re.compile(r"\\f?boxed\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def nearest(name: str, choices: Iterable[str]) -> str:
    """The one of `choices` that `name` is probably a misspelling of, whatever its case, or "" if none is like it."""
    by_lower = {choice.lower(): choice for choice in choices}
    return next((by_lower[found] for found in get_close_matches(name.lower(), list(by_lower), n=1)), "")


def a(noun: str) -> str:
    """`noun` behind its article: a selector, an intervention."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def last_box(text: str, *, any_form: bool = False) -> str | None:
    r"""The content of the last `\boxed{…}`, blanks around it removed; None if there is none that is closed. A brace
    behind a backslash is a character, behind a line break `\\` a brace.

    `any_form`, for solutions that are known to be right: `\fboxed{…}` and `\boxed {…}` count too, and one that is not
    closed gives way to the one before.
    """
    for box in reversed(list((_ANY_BOX if any_form else _BOX).finditer(text))):
        depth = 1
        for brace in _BRACE.finditer(text, box.end()):
            depth += {"{": 1, "}": -1}.get(brace[0], 0)
            if depth == 0:
                return text[box.end() : brace.start()].strip()
        if not any_form:
            return None
    return None
