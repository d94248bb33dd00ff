"""What a reward's own code returned, checked before it is used. It runs in the workers: no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_args

from ampo_registry.errors import PluginError
from ampo_registry.step import checked_metric
from ampo_registry.types import Grade, GradeStatus

STATUSES = get_args(GradeStatus)
_SHOWN = 200


def only_grade(found: object) -> Grade:
    """The grade of the only request that `grade` was asked. Raises PluginError for what is none."""
    if not isinstance(found, list | tuple) or len(found) != 1:
        raise _wrong("grade", found, "a list with one Grade for the one request")
    return checked_grade(found[0])


def checked_grade(grade: object, method: str = "grade") -> Grade:
    """`grade`, if it is one that the core can use. Raises PluginError."""
    if not isinstance(grade, Grade):
        raise _wrong(method, grade, "a Grade")
    reward: Any = grade.reward
    if not _is_number(reward) or not math.isfinite(reward):
        raise _wrong(method, reward, "a finite number as reward")
    for name in ("correct", "formatted"):
        if not isinstance(value := getattr(grade, name), bool):
            raise _wrong(method, value, f"True or False as {name}")
    if grade.status not in STATUSES:
        raise _wrong(method, grade.status, f"one of {', '.join(STATUSES)} as status")
    if not isinstance(grade.detail, str):
        raise _wrong(method, grade.detail, "text as detail")
    _check_numbers(grade.numbers, method)
    return grade


def reason(found: object, method: str) -> str | None:
    """What `check_truth` or `note_truth` says. Raises PluginError for what is neither text nor None."""
    if found is None or (isinstance(found, str) and found.strip()):
        return found
    raise _wrong(method, found, "a reason or None")


def _check_numbers(numbers: object, method: str) -> None:
    if not isinstance(numbers, Mapping):
        raise _wrong(method, numbers, "a mapping of names to numbers as numbers")
    for name, value in numbers.items():
        if not isinstance(name, str) or not _is_number(value):
            raise _wrong(method, {name: value}, "names and numbers in numbers")
        checked_metric(name, value, f"{method}() gave a Grade whose numbers are no metrics")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _wrong(method: str, found: object, expected: str) -> PluginError:
    shown = repr(found)
    shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…"
    return PluginError(f"{method}() gave {shown}; expected {expected}")
