"""What a reward's own code returned, checked before it is used. It runs in the workers: no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import get_args

from ampo_registry.errors import PluginError
from ampo_registry.step import checked_metric
from ampo_registry.types import Grade, GradeRequest, GradeStatus

from ampo_core.checked.call import Asked, shown
from ampo_core.data.report import TruthCheck

STATUSES = get_args(GradeStatus)


def grade_of(reward: Asked, request: GradeRequest) -> Grade:
    """The grade that a reward gives a response. Raises PluginFault."""
    found = reward.ask("grade", [request])
    if not isinstance(found, list | tuple) or len(found) != 1:
        raise reward.wrong("grade", shown(found), "a list of one Grade for one request")
    return checked_grade(reward, found[0])


def unverified(spec: Asked, text: str) -> Grade:
    """What a response earns that nothing could verify: what a wrong one earns. Raises PluginFault."""
    formatted = spec.ask("formatted", text)
    if not isinstance(formatted, bool):
        raise spec.wrong("formatted", shown(formatted), "True or False")
    return checked_grade(spec, spec.ask("combine", False, formatted), "combine")


def truth_check(reward: Asked, spec: Asked, truth: str) -> TruthCheck:
    """What `check_truth` and, where that accepts, `note_truth` say. Raises PluginFault."""
    if (refused := _reason(reward, "check_truth", truth)) is not None:
        return TruthCheck(refused=refused)
    return TruthCheck(listed=_reason(spec, "note_truth", truth))


def canaries_of(spec: Asked) -> list[tuple[GradeRequest, bool]]:
    """The known responses of a reward. Raises PluginFault."""
    found = spec.ask("canaries")
    expected = "a list of (GradeRequest, True or False)"
    if not isinstance(found, list | tuple):
        raise spec.wrong("canaries", shown(found), expected)
    for item in found:
        match item:
            case (GradeRequest(), bool()):
                continue
        raise spec.wrong("canaries", shown(item), expected)
    return list(found)


def checked_grade(reward: Asked, grade: object, method: str = "grade") -> Grade:
    """`grade`, if it is one that the core can use. Raises PluginFault."""
    if not isinstance(grade, Grade):
        raise reward.wrong(method, shown(grade), "a Grade")
    value: object = grade.reward
    if not _is_number(value) or not math.isfinite(grade.reward):
        raise reward.wrong(method, shown(value), "a finite number as reward")
    for name in ("correct", "formatted"):
        if not isinstance(said := getattr(grade, name), bool):
            raise reward.wrong(method, shown(said), f"True or False as {name}")
    if grade.status not in STATUSES or not isinstance(grade.detail, str):
        raise reward.wrong(method, shown((grade.status, grade.detail)), f"{', '.join(STATUSES)} and a text")
    _check_numbers(reward, grade.numbers, method)
    return grade


def _reason(asked: Asked, method: str, truth: str) -> str | None:
    found = asked.ask(method, truth)
    if found is not None and not (isinstance(found, str) and found.strip()):
        raise asked.wrong(method, shown(found), "a reason or None")
    return found


def _check_numbers(reward: Asked, numbers: object, method: str) -> None:
    if not isinstance(numbers, Mapping):
        raise reward.wrong(method, shown(numbers), "a mapping of names to numbers")
    for name, value in numbers.items():
        if not isinstance(name, str) or not _is_number(value):
            raise reward.wrong(method, shown({name: value}), "names and numbers in numbers")
        try:
            checked_metric(name, value, "numbers that may be metrics")
        except PluginError as error:
            raise reward.wrong(method, shown({name: value}), str(error)) from None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
