"""Where a response says its answer."""

from __future__ import annotations

import re

_TAGGED = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL)
_TAGGED_IN_ANY_CASE = re.compile(_TAGGED.pattern, re.DOTALL | re.IGNORECASE)


def tagged_answer(text: str, any_case: bool = False) -> str | None:
    """The content of the last `<answer>…</answer>`, blanks around it removed; None if there is none. `any_case` reads
    `<ANSWER>` too."""
    contents = (_TAGGED_IN_ANY_CASE if any_case else _TAGGED).findall(text)
    return contents[-1].strip() if contents else None


def without_thoughts(text: str) -> str:
    """What stands outside `<think>…</think>`; the whole text if that is nothing.

    A thought whose opening tag stands in the prompt ends at the first `</think>`. One that is not closed is text like
    any other.
    """
    kept, position = [], 0
    while (opened := text.find("<think>", position)) >= 0 and (closed := text.find("</think>", opened)) >= 0:
        kept.append(text[position:opened])
        position = closed + len("</think>")
    kept.append(text[position:])
    outside = "".join(part.rpartition("</think>")[2] for part in kept)
    return outside if outside.strip() else text
