"""Plain numbers, read and compared as numbers: `42`, `0.5`, `\\frac{1}{2}`, `5.47e5`, `5.47 \\times 10^{5}`, `50%`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from decimal import Context, Decimal
from fractions import Fraction
from functools import lru_cache

LARGEST = 1000
"""Digits, and power of ten, up to which a number is calculated with; a larger one equals only itself."""
ENOUGH_DIGITS = 6
"""Significant digits of a decimal that may stand for every number that rounds to it."""

_LONGEST_TEXT = 4096
_WRAPPERS = (("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("\\boxed{", "}"))
_DECIMAL = re.compile(
    r"(?P<whole>\d{1,3}(?:(?:,|\{,\}|,\\!\s?)\d{3})+|\d*)(?:\.(?P<decimals>\d*))?"
    r"(?:[eE](?P<power>[-+]?\d+))?",
    re.ASCII,
)
_POWER = re.compile(
    r"(?:(?P<mantissa>[\d.,{}\\!\s]+?)\s*(?:\\times|\\cdot|\*|×|·|x)\s*)?10\s*(?:\^|\*\*)\s*"
    r"(?:\{\s*(?P<braced>[-+]?\s*\d+)\s*\}|\(\s*(?P<round>[-+]?\s*\d+)\s*\)|(?P<bare>[-+]?\d+))",
    re.ASCII,
)
_FRACTION = re.compile(
    r"\\[dtc]?frac\s*(?:\{\s*(?P<top>[-+]?\s*\d+)\s*\}|(?P<digit>\d))\s*(?:\{\s*(?P<low>\d+)\s*\}|(?P<last>\d))"
    r"|(?P<over>\d+)\.?\s*/\s*(?P<under>\d+)\.?",
    re.ASCII,
)
_MARK = re.compile(r"\s*(?:(?P<percent>\\?%)|\^\s*(?:\\circ|\{\s*\\circ\s*\}))\Z")
_BLANKS = re.compile(r"(?:\\[,;:! ]|[~\s])+\Z")
# What stands before the number of an answer: "x =", "v_0 \approx", "=".
_NAME = re.compile(r"(?:(?:[A-Za-z]|\\[A-Za-z]+)(?:_(?:\w|\{[\w\s,]*\}))?\s*)?(?:=|\\approx|≈)\s*")
_UNIT = re.compile(r"\\(?:text|mbox|mathrm|textrm|operatorname)\s*\{")
_POWER_OF_UNIT = re.compile(r"\^\s*(?:\d|\{\s*-?\d+\s*\})")
_NO_UNIT = re.compile(r"[\d=|]|\b(?:or|and|to|percent|dozen|hundred|thousand|[mbtr]illion)\b")


@dataclass(frozen=True)
class Number:
    """A number as it is written. `digits` are its significant digits, None for an integer or a fraction; `value` is
    text where calculating with it would take long."""

    value: Fraction | str
    digits: int | None
    places: int = 0
    percent: bool = False


def same_number(truth: Number, answer: Number) -> bool:
    """Whether two numbers are equal.

    Integers and fractions are compared exactly, `142.0` being an integer. A decimal truth of at least six significant
    digits equals what rounds to it; one of fewer digits is taken as it stands. A fraction equals a decimal that it
    rounds to, if that has at least six significant digits and six decimals. A percentage is its number or a hundredth
    of it, whichever the other side says.
    """
    if truth.percent == answer.percent:
        return _equal(truth, answer)
    percentage, number = (truth, answer) if truth.percent else (answer, truth)
    if isinstance(percentage.value, str):
        return False
    hundredth = replace(percentage, value=percentage.value / 100, places=percentage.places + 2)
    return any(_equal(number, reading) for reading in (percentage, hundredth))


@lru_cache(maxsize=4096)
def read_number(text: str, named: bool = False) -> Number | None:
    """The number that `text` is, its unit left out; None if it is anything else. With `named` it may also be what a
    variable equals: `x = 5`."""
    if len(text) > _LONGEST_TEXT:
        return None
    text = _unwrapped(text)
    if named and (name := _NAME.match(text)):
        text = text[name.end() :]
    text = _without_unit(text).removeprefix("\\$")
    mark = _MARK.search(text)
    text = text[: mark.start()] if mark else text
    negative = text.startswith("-")
    text = text[1:].lstrip() if text[:1] in ("-", "+") else text
    number = _fraction(text, negative) or _decimal(text, negative)
    return replace(number, percent=True) if number and mark and mark["percent"] else number


def _equal(truth: Number, answer: Number) -> bool:
    if truth.value == answer.value:
        return True
    if isinstance(truth.value, str) or isinstance(answer.value, str):
        return False
    if truth.digits is not None:
        return truth.digits >= ENOUGH_DIGITS and _rounded(answer.value, truth.digits) == _rounded(
            truth.value, truth.digits
        )
    if truth.value.denominator == 1 or answer.digits is None:
        return False
    enough = min(answer.digits, answer.places) >= ENOUGH_DIGITS
    return enough and _rounded(truth.value, answer.digits) == _rounded(answer.value, answer.digits)


def _rounded(value: Fraction, digits: int) -> Decimal:
    return Context(prec=digits).divide(Decimal(value.numerator), Decimal(value.denominator))


def _unwrapped(text: str) -> str:
    for opening, closing in _WRAPPERS * 2:
        text = text.strip()
        if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening) + len(closing):
            text = text[len(opening) : -len(closing)]
    return text.strip()


def _without_unit(text: str) -> str:
    unit = _UNIT.search(text)
    if unit and not _NO_UNIT.search(_POWER_OF_UNIT.sub("", text[unit.start() :])):
        text = text[: unit.start()]
    return _BLANKS.sub("", text)


def _fraction(text: str, negative: bool) -> Number | None:
    found = _FRACTION.fullmatch(text)
    if found is None:
        return None
    top = re.sub(r"[\s+]", "", found["top"] or found["digit"] or found["over"])
    low = found["low"] or found["last"] or found["under"]
    if len(top) + len(low) > LARGEST:
        return Number(f"{'-' * negative}{top}/{low}", None)
    if int(low) == 0:
        return None
    return Number(Fraction(int(top), int(low)) * (-1 if negative else 1), None)


def _decimal(text: str, negative: bool) -> Number | None:
    scaled = _POWER.fullmatch(text)
    written = _DECIMAL.fullmatch((scaled["mantissa"] or "1").strip() if scaled else text)
    if written is None or (scaled and written["power"]):
        return None
    whole, decimals = re.sub(r"\D", "", written["whole"]), written["decimals"] or ""
    if not whole + decimals:
        return None
    power = re.sub(r"[\s+]", "", (scaled["braced"] or scaled["round"] or scaled["bare"]) if scaled else "")
    power = power or (written["power"] or "0").lstrip("+")
    significant = (whole + decimals).lstrip("0")
    exact = not decimals.strip("0") and not (scaled or written["power"])
    digits = None if exact else len(significant)
    if len(power) > len(str(LARGEST)) or abs(int(power)) > LARGEST or len(whole + decimals) > LARGEST:
        return Number(f"{'-' * negative}{whole}.{decimals.rstrip('0')}e{power}", digits)
    value = Fraction(int(whole + decimals)) * Fraction(10) ** (int(power) - len(decimals))
    return Number(-value if negative else value, digits, max(0, len(decimals) - int(power)))
