"""Whether an answer to a question with one answer names several."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from ampo_plugins.rewards.library import number_of
from ampo_plugins.rewards.normalise import LONGEST
from ampo_plugins.rewards.numbers import Number, read_number

_OR = r"\\text\s*\{\s*or\s*\}|\bor\b"
# What joins a list of answers; a comma inside 1,000 joins nothing.
_LIST = re.compile(rf",(?!\d{{3}}(?!\d)|\\!|\}})|\\(?:pm|mp|cup)(?![A-Za-z])|\\text\s*\{{\s*and\s*\}}|\band\b|{_OR}")
# What leads from one statement to the next, or offers one more.
_STEP = re.compile(
    r"\\(?:to|[Ll]ong[rR]ightarrow|[rR]ightarrow|implies|iff|mapsto|lor|vee|mid|cup|q?quad)(?![A-Za-z])|\\&|\\\\"
    rf"|->|=>|[→⇒⟹↦⟶&;?\n]|\.(?=\s)|(?:(?<!\.)\.\.+|…|\\[lc]?dots)\s*(?=[-+\d])|{_OR}"
)
_JOINT = re.compile(r"(:?==?|\\(?:equiv|approx|simeq|sim|cong|doteq)(?![A-Za-z])|[≈≡])")
_EXACT = ("=", "==", ":=", "\\equiv", "≡")
_ARITHMETIC = re.compile(
    r"(?:[\d.,+\-*/^(){}\[\]!%\s×·÷π$]|\\[,;:!%$ ]"
    r"|\\(?:[dtc]?frac|sqrt|cdot|times|div|pi|left|right|binom|boxed)(?![A-Za-z]))+"
)
_TINY = Fraction(1, 10**9)


def names_several(answer: str, truth: str) -> bool:
    """Whether an answer states values that differ, joined by `=`, `\\to`, `or` and their like.

    `70+3 = 73`, `x \\approx 42` and `\\frac{2}{7} = 0.286` name one value. An equation about something else, as in
    `2x = 84 \\Rightarrow x = 42`, names none. Where the truth is a list, each item of the answer is looked at alone.
    What is longer than an answer can be counts as several.
    """
    if answer == truth or "\\begin" in answer:
        return False
    if len(answer) > LONGEST + len(truth):
        return True
    if _LIST.search(truth):
        return any(_disagree(_statement(item)[1]) for item in _LIST.split(answer))
    statements = [_statement(step) for step in _STEP.split(_marked(answer))]
    subject = next((about for about, values in reversed(statements) if values), "")
    return _disagree([value for about, values in statements if about in ("", subject) for value in values])


def _marked(answer: str) -> str:
    """With bars and brackets that close nothing marked as steps."""
    if answer.count("|") % 2:
        answer = answer.replace("|", ";")
    return answer.replace(")", ";") if answer.count(")") > answer.count("(") + answer.count("[") else answer


def _statement(step: str) -> tuple[str, list[tuple[str, bool]]]:
    """What a step is about, and its values, each with whether it is only about as large as the one before."""
    first, *rest = _JOINT.split(step)
    parts = [("=", first), *zip(rest[::2], rest[1::2], strict=True)]
    values = [(_bare(part), joint not in _EXACT) for joint, part in parts if _ARITHMETIC.fullmatch(part)]
    return "" if _ARITHMETIC.fullmatch(first) else first.strip(), [value for value in values if value[0]]


def _bare(part: str) -> str:
    part = part.strip()
    return part.strip("() ") if part.count("(") != part.count(")") else part


def _disagree(values: Sequence[tuple[str, bool]]) -> bool:
    return any(_differ(one, other, about) for (one, _), (other, about) in pairwise(values))


def _differ(one: str, other: str, about: bool) -> bool:
    """Whether the second value is not the first, nor what that rounds to; no if one of them is not known."""
    if one == other:
        return False
    known, stated = read_number(one), read_number(other)
    left, right = _value(one, known), _value(other, stated)
    if left is None or right is None:
        return False
    unit = _unit(stated, about) if stated else Fraction(0)
    percent = sum(bool(number and number.percent) for number in (known, stated)) == 1
    scales = (Fraction(1), Fraction(100), Fraction(1, 100)) if percent else (Fraction(1),)
    return all(abs(left * scale - right) > max(unit, _TINY * abs(right)) for scale in scales)


def _value(text: str, number: Number | None) -> Fraction | None:
    if number is None:
        return number_of(text)
    return None if isinstance(number.value, str) else number.value


def _unit(number: Number, about: bool) -> Fraction:
    """Largest distance to what may stand as this number: a unit of its last digit if it is a decimal. An integer is
    exact, unless it is only about as large."""
    if number.digits is not None:
        return Fraction(1, 10**number.places)
    if not about or not isinstance(number.value, Fraction) or number.value.denominator > 1:
        return Fraction(0)
    digits = str(abs(number.value.numerator))
    return Fraction(10 ** (len(digits) - len(digits.rstrip("0")))) * Fraction(99, 100)
