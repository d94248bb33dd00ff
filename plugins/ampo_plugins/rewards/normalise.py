"""Answers as they are written, and as Math-Verify reads them.

Every step keeps the mathematics of what it is given. `normalised` of a normalised text is that text.
"""

from __future__ import annotations

import re

LONGEST = 4096
"""Characters; what is longer is no answer, and only its characters are put right."""

_INVISIBLE = dict.fromkeys((*range(0x200B, 0x2010), *range(0x2060, 0x2065), 0xFEFF, 0xAD))
_SPACES = dict.fromkeys((0xA0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000), " ")
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_MEANT = str.maketrans(
    {
        "\u2010": "-",
        "\u2011": "-",
        "\u2212": "-",
        "\ufe63": "-",
        "\u3002": ".",
        "\u3001": ",",
        "\u00b7": r"\cdot ",
        "\u22c5": r"\cdot ",
        "\u00d7": r"\times ",
        "\u2044": "/",
        "\u221a": r"\sqrt",
        "\u221e": r"\infty ",
        "\u00bd": r"\frac{1}{2}",
        "\u00bc": r"\frac{1}{4}",
        "\u00be": r"\frac{3}{4}",
    }
)
_CHARACTERS = {**_INVISIBLE, **_SPACES, **_FULL_WIDTH, **_MEANT}
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_POWER = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_DEGREES = re.compile(r"\^?[°º˚]|\^\s?∘|\\degree(?![A-Za-z])")
_DASH = re.compile(r"\A\u2013(?=\s*[\d.\\])")
_BOLD = re.compile(r"(?<![\w)}\]*])\*\*(?=[^\s*])([^*]+)(?<=\S)\*\*(?!\*)|(?<!\w)__(?=[^\s_])([^_]+)(?<=\S)__(?!\w)")
# "So the final answer is:", "**Answer:**", "Therefore,"
_LEAD = re.compile(
    r"(?:(?:so|thus|hence|therefore)\b[,:]?\s*)?(?:(?:the|my|our)\s+)?(?:(?:final|correct|right)\s+)?"
    r"(?:answer|result|solution)(?:\s+to\s+(?:the|this)\s+\w{1,20})?\s*(?:is\b|are\b|:|=)\s*[:=]?\s*"
    r"|(?:so|thus|hence|therefore)\b[,:]?\s+(?=[-+\d\\$(.])|(?:it|this)\s+is\s+(?=[-+\d\\$(.])",
    re.IGNORECASE,
)
# "41. This is the answer.", "41, which is even", "41 is my answer": words behind a mathematical answer.
_TAIL = re.compile(
    r"(?:[.;!]\s+(?=[A-Z])|,\s+(?:which|because|since|so|as)\b|\s+(?:is|are)\s+(?:the|my|our|a)\b)[^\n]*\Z|\n\s*[A-Z].*\Z",
    re.DOTALL,
)
_SAYS = re.compile(r"\b(?:answer|result|solution)\b", re.IGNORECASE)
_NO_WORD = re.compile(r"[\d\\$=^{}]")
_DOUBT = re.compile(r"\b(?:not|no|or|wrong|incorrect|either|maybe|perhaps|but)\b|n['’]t\b", re.IGNORECASE)
_DELIMITER = re.compile(r"\\(?:left|right|middle|[bB]igg?[lmr]?)\Z")
_EXPONENT = re.compile(r"(?<![\w.])(\d+(?:\.\d*)?|\.\d+)[eE]([-+]?\d{1,6})(?![\w.]*[A-Za-z_^])", re.ASCII)


def normalised(answer: str) -> str:
    """An answer or a ground truth without what surrounds it: punctuation, markdown, a sentence around it."""
    answer = characters(answer).strip()
    while len(answer) <= LONGEST and (bare := _bare(answer)) != answer:
        answer = bare
    return answer


def characters(text: str) -> str:
    """A text in which signs, digits and blanks of Unicode are those that mathematics is written with in ASCII."""
    if text.isascii() and "\\degree" not in text:
        return text
    text = _DEGREES.sub(r"^{\\circ}", text.replace("√(", "sqrt(").translate(_CHARACTERS))
    return _POWER.sub(lambda power: f"^{{{power[0].translate(_RAISED)}}}", text)


def with_powers(text: str) -> str:
    """A text in which `5.47e5` reads `5.47 \\times 10^{5}`; Math-Verify would read 5.47·e·5."""
    return _EXPONENT.sub(r"\1 \\times 10^{\2}", text)


def _bare(answer: str) -> str:
    """One layer less."""
    answer = _without_tail(_trimmed(answer))
    answer = _DASH.sub("-", _BOLD.sub(r"\1\2", answer))
    answer = _LEAD.sub("", answer, count=1) if _LEAD.match(answer) else answer
    for opening, closing in ("``", "**", '""', "“”"):
        layers = min(len(answer) - len(answer.lstrip(opening)), len(answer) - len(answer.rstrip(closing)))
        answer = answer[layers : len(answer) - layers]
    for opening, closing in (("$", "$"), ("\\boxed{", "}")):
        inner = answer[len(opening) : -len(closing)]
        if answer.startswith(opening) and answer.endswith(closing) and not re.search(r"[${}]", inner):
            answer = opening + _trimmed(inner) + closing
    return answer.strip()


def _trimmed(answer: str) -> str:
    """Without punctuation, spacing commands and line breaks at the end, `\\right.` and an ellipsis kept."""
    while (answer := answer.rstrip()) and answer[-1] in ".,;:\\":
        before = answer[:-1]
        if answer[-1] == "." and (before.endswith(("..", "\\")) or _DELIMITER.search(before)):
            break
        answer = before.removesuffix("\\")
    return answer


def _without_tail(answer: str) -> str:
    """Without a sentence of words alone behind the mathematics; behind letters alone it must speak of the answer."""
    last = max((found.end() for found in _NO_WORD.finditer(answer)), default=0)
    words = _TAIL.search(answer, last)
    if words is None or _DOUBT.search(words[0]) or not (last or _SAYS.search(words[0])):
        return answer
    return answer[: words.start()]
