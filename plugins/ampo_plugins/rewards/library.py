"""Math-Verify: what it reads, and what it takes for equal. May run for very long: needs a deadline.

Its own timeouts rest on signal.alarm and are off; the core's workers have the deadline.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

_NEAR = 5e-6
"""Largest difference of numbers that are equal, relative to them: half a unit of the sixth digit."""
_BASE = re.compile(r"(?<![A-Za-z\\])\d_\{?\d")
_WORDS = re.compile(r"\\(?:text|mbox|mathrm|textrm|textbf|operatorname)\s*\{[^{}]*\}")
_SYMBOLS = re.compile(r"\\[A-Za-z]+|[A-Za-z]")


def parsed(content: str) -> list[Any]:
    """What Math-Verify reads as the content of a box: a sympy value, if there is one, and a string."""
    return list(_remembered(content))


def parsed_text(text: str, **options: Any) -> list[Any]:
    """What Math-Verify reads in a whole response."""
    from math_verify import parse

    # It warns about every disabled timeout.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    found: list[Any] = parse(text, parsing_timeout=None, **options)
    return found


def equal(truth: Sequence[Any], answer: Sequence[Any], digits: bool) -> bool:
    """Whether Math-Verify takes one of the readings of an answer for one of the ground truth.

    It rounds to six decimals, so that all small numbers are equal to it. With `digits` two numbers must have six
    significant digits in common too.
    """
    from math_verify import verify

    return any(
        verify([gold], [found], timeout_seconds=None) and not (digits and _apart(gold, found))
        for gold in truth
        for found in answer
    )


def string_only(content: str) -> bool:
    """Whether Math-Verify compares it letter by letter."""
    return all(isinstance(value, str) for value in parsed(content))


def lost(content: str) -> str | None:
    """What of a ground truth does not survive in the value that Math-Verify reads, in words; None if all does."""
    import sympy
    from latex2sympy2_extended.sets import FiniteSet

    value, *rest = parsed(content)
    if isinstance(value, str):
        return None
    if not _whole(content) or value.has(sympy.zoo, sympy.nan):
        return f"Math-Verify reads no more of it than {str(value)[:40]}"
    kept = set(_SYMBOLS.findall(str(rest[0]))) if rest else set()
    if any(len(symbol) == 1 and symbol not in kept for symbol in _SYMBOLS.findall(_WORDS.sub("", content))):
        return f"Math-Verify takes a letter of it for a unit and reads {str(value)[:40]}"
    if _BASE.search(content):
        return f"Math-Verify leaves out the base and reads {str(value)[:40]}"
    if isinstance(value, FiniteSet) and len(value._unsorted_args) > len(value.args):
        return "Math-Verify reads a set, in which what is repeated counts once"
    return None


def number_of(content: str) -> Fraction | None:
    """The value of an arithmetic expression, to twenty digits; None if it is not a number that Math-Verify reads."""
    import sympy

    found = _whole(content)
    try:
        return Fraction(str(sympy.N(found[0].doit(), 20))) if found else None
    except (ArithmeticError, AttributeError, TypeError, ValueError):
        return None


def _whole(content: str) -> list[Any]:
    # The first match is the whole; where that fails, the next ones would be fragments of it.
    return parsed_text(f"\\boxed{{{content}}}", fallback_mode="no_fallback", extraction_mode="first_match")


# Parsing is most of the work, and a group asks for one ground truth and few different answers.
@lru_cache(maxsize=1024)
def _remembered(content: str) -> tuple[Any, ...]:
    return tuple(parsed_text(f"\\boxed{{{content}}}"))


def _apart(gold: Any, found: Any) -> bool:
    """Whether two values that Math-Verify takes for equal are numbers, or made of numbers, that surely differ."""
    import sympy
    from math_verify.grader import is_relation, take_last_relation

    if isinstance(gold, str) or isinstance(found, str):
        return False
    if is_relation(gold) and is_relation(found):
        gold, found = take_last_relation(gold), take_last_relation(found)
        return bool(gold.lhs == found.lhs) and _apart(gold.rhs, found.rhs)
    gold, found = (take_last_relation(x).rhs if is_relation(x) else x for x in (gold, found))
    if isinstance(gold, sympy.Tuple) and isinstance(found, sympy.Tuple):
        return any(map(_apart, gold.args, found.args))
    if isinstance(gold, sympy.FiniteSet) and isinstance(found, sympy.FiniteSet):
        return any(all(_apart(one, other) for other in found.args) for one in gold.args)
    if isinstance(gold, sympy.Interval) and isinstance(found, sympy.Interval):
        return _apart(gold.start, found.start) or _apart(gold.end, found.end)
    return isinstance(gold, sympy.Expr) and isinstance(found, sympy.Expr) and _differ(gold, found)


def _differ(gold: Any, found: Any) -> bool:
    """Whether two expressions of the same symbols have different values; no if that cannot be said."""
    import sympy

    symbols = sorted(gold.free_symbols | found.free_symbols, key=str)
    percentage = sympy.UnevaluatedExpr(sympy.Rational(1, 100))  # 9% is 0.09 and 9
    if gold.free_symbols != found.free_symbols or gold.has(percentage) or found.has(percentage):
        return False
    try:
        values = {symbol: sympy.Rational(7 + 2 * place, 5) for place, symbol in enumerate(symbols)}
        one, other = (sympy.N(side.doit().subs(values), 15) for side in (gold, found))
        if not (one.is_number and other.is_number and one.is_finite and other.is_finite):
            return False
        return bool(abs(one - other) > _NEAR * max(abs(one), abs(other)))
    except (ArithmeticError, TypeError, ValueError, AttributeError):
        return False
