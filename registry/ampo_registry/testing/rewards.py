"""Conformance of rewards."""

from __future__ import annotations

import math
import pickle

from ampo_registry.protocols import BuildContext, Reward
from ampo_registry.specs import RewardSpec
from ampo_registry.testing.common import Rules, check_spec_class, twice
from ampo_registry.types import Grade, GradeRequest


def check_reward(
    spec: RewardSpec, truth: str = "42", wrong: str = "41", source: str = "", bounds: tuple[float, float] = (0.0, 1.0)
) -> None:
    """A reward can be sent to a worker, grades in order, knows a right answer from a wrong one, refuses an empty truth.

    `truth` and `wrong` are two answers in the form this reward verifies; `source` is their data source.
    """
    check_spec_class(spec)
    rule = Rules(spec)
    component: Reward = spec.build(BuildContext())
    texts = [
        f"So it is. <answer>{truth}</answer>",
        f"So it is. <answer>{wrong}</answer>",
        "<answer></answer>",
        "",
        "word " * 50,
    ]
    requests = [GradeRequest(text, truth, source) for text in texts]
    rule(component.check_truth(truth) is None, f"the truth {truth!r} must be accepted", component.check_truth(truth))
    rule(bool(component.check_truth("")), "an empty truth must be refused with a reason")
    for answer in (truth, wrong):
        note = spec.note_truth(answer)
        rule(note is None or bool(note), "note_truth() must give a reason or None", note)
    rule(component.grade([]) == [], "no requests must give no grades")
    grades, again = twice(component.grade, requests)
    rule(len(grades) == len(requests), "there must be one grade for each request", len(grades))
    rule(grades == again, "the same requests must get the same grades")
    rule(component.grade(requests[::-1]) == grades[::-1], "grades must be in the order of the requests")
    rule(grades[0].correct, "the truth inside answer tags must be graded correct", grades[0])
    rule(
        not any(grade.correct for grade in grades[1:]),
        "a wrong, empty or missing answer must not be correct",
        grades[1:],
    )
    rule(grades[0].reward > grades[1].reward, "a right answer must earn more than a wrong one", grades[:2])
    for grade in grades:
        _check_grade(rule, grade, bounds)
    copied: Reward = pickle.loads(pickle.dumps(component))  # noqa: S301 - our own bytes, of this very line
    rule(copied.grade(requests) == grades, "a pickled copy must give the same grades")


def _check_grade(rule: Rules, grade: Grade, bounds: tuple[float, float]) -> None:
    low, high = bounds
    rule(math.isfinite(grade.reward) and low <= grade.reward <= high, f"rewards must lie in {low}..{high}", grade)
    rule(grade.status == "ok", "timeouts and errors must not occur on plain answers", grade)
