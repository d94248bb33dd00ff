"""Where a response says its answer."""

from __future__ import annotations

import re

_TAGGED = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL)


def tagged_answer(text: str) -> str | None:
    """The content of the last `<answer>…</answer>`, blanks around it removed; None if there is none."""
    contents = _TAGGED.findall(text)
    return contents[-1].strip() if contents else None
