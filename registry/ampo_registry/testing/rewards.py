"""Conformance of rewards."""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from dataclasses import replace

from ampo_registry.errors import PluginError
from ampo_registry.protocols import BuildContext, Reward
from ampo_registry.specs import RewardSpec
from ampo_registry.step import checked_metric
from ampo_registry.testing.common import Rules, check_spec_class, twice
from ampo_registry.types import Grade, GradeRequest

Case = tuple[GradeRequest, bool]
"""A request and whether it is correct."""
NO_ANSWERS = ("<answer></answer>", "", "word " * 50)
TEACH = (
    "nothing says what is right: give the spec canaries(), known responses with whether they are correct; or call "
    'check_reward(spec, "42", "41") with an answer that is the ground truth and one that is wrong; or give whole '
    "responses, check_reward(spec, right=[GradeRequest('<answer>3 * 8</answer>', '{\"target\": 24}')], wrong=[…])"
)


def check_reward(
    spec: RewardSpec,
    truth: str | None = None,
    wrong: str | Sequence[GradeRequest] = (),
    source: str = "",
    bounds: tuple[float, float] = (0.0, 1.0),
    *,
    right: Sequence[GradeRequest] = (),
) -> None:
    """A reward can be sent to a worker, grades in order, knows right from wrong, refuses an empty truth.

    What is right and wrong say the spec's `canaries`, the responses `right` and `wrong`, and `truth` with another
    answer `wrong`: two answers in the form that this reward verifies, put into answer tags, with `source` as their data
    source. At least one right and one wrong response must be known. Rewards lie in `bounds`.
    """
    check_spec_class(spec)
    rule = Rules(spec)
    component: Reward = spec.build(BuildContext())
    cases = _cases(rule, spec, truth, wrong, source, right)
    rule(any(correct for _, correct in cases) and not all(correct for _, correct in cases), TEACH)
    _check_truths(rule, spec, component, cases)
    requests = [request for request, _ in cases]
    known = dict(cases)
    for request, correct in cases:
        if correct:
            requests += [replace(request, text=text) for text in NO_ANSWERS]
    rule(component.grade([]) == [], "no requests must give no grades")
    grades, again = twice(component.grade, requests)
    rule(len(grades) == len(requests), "there must be one grade for each request", len(grades))
    for grade in grades:
        _check_grade(rule, grade, bounds)
    rule(grades == again, "the same requests must get the same grades")
    rule(component.grade(requests[::-1]) == grades[::-1], "grades must be in the order of the requests")
    found = list(zip(requests, grades, strict=True))
    for request, grade in found:
        said = f"{request.text!r} with the ground truth {request.answer!r}"
        if known.get(request, False):
            rule(grade.correct, f"{said} must be correct", grade)
        else:
            rule(not grade.correct, f"{said} must not be correct", grade)
    _check_order(rule, [(request.answer, grade) for request, grade in found])
    silent = sorted(set(spec.logs) - {name for grade in grades for name in grade.numbers})
    rule(not silent, "every name in logs must be among the numbers of some grade", silent or None)
    copied: Reward = pickle.loads(pickle.dumps(component))  # noqa: S301 - our own bytes, of this very line
    rule(copied.grade(requests) == grades, "a pickled copy must give the same grades")


def _cases(
    rule: Rules,
    spec: RewardSpec,
    truth: str | None,
    wrong: str | Sequence[GradeRequest],
    source: str,
    right: Sequence[GradeRequest],
) -> list[Case]:
    """What is known to be right or wrong."""
    cases = [(request, correct) for request, correct in spec.canaries()]
    cases += [(request, True) for request in right]
    if not isinstance(wrong, str):
        cases += [(request, False) for request in wrong]
    answers = [(truth, True), (wrong if isinstance(wrong, str) else None, False)]
    if truth is None:
        rule(
            not isinstance(wrong, str), "an answer that is wrong needs a truth beside it, or be a list of GradeRequests"
        )
        return cases
    return cases + [
        (GradeRequest(f"So it is. <answer>{answer}</answer>", truth, source), correct)
        for answer, correct in answers
        if answer is not None
    ]


def _check_truths(rule: Rules, spec: RewardSpec, component: Reward, cases: Sequence[Case]) -> None:
    for truth in dict.fromkeys(request.answer for request, _ in cases):
        refused = component.check_truth(truth)
        rule(refused is None, f"the truth {truth!r} must be accepted", refused)
    reason = component.check_truth("")
    rule(_is(reason, str) and bool(reason), "an empty truth must be refused with a reason", reason)
    for truth in dict.fromkeys(request.answer for request, _ in cases):
        note = spec.note_truth(truth)
        rule(note is None or (_is(note, str) and bool(note)), "note_truth() must give a reason or None", note)


def _check_order(rule: Rules, graded: Sequence[tuple[str, Grade]]) -> None:
    """Whatever is right earns more than whatever is wrong, truth by truth."""
    for truth in dict.fromkeys(truth for truth, _ in graded):
        own = [grade for other, grade in graded if other == truth]
        right = min((grade.reward for grade in own if grade.correct), default=math.inf)
        wrong = max((grade.reward for grade in own if not grade.correct), default=-math.inf)
        rule(right > wrong, f"a right answer must earn more than a wrong one (truth {truth!r})", (right, wrong))


def _check_grade(rule: Rules, grade: object, bounds: tuple[float, float]) -> None:
    low, high = bounds
    if not isinstance(grade, Grade):
        raise AssertionError(f"{rule.subject}: grade() must give Grades; found {grade!r}")
    rule(math.isfinite(grade.reward) and low <= grade.reward <= high, f"rewards must lie in {low}..{high}", grade)
    rule(_is(grade.correct, bool) and _is(grade.formatted, bool), "correct and formatted must be True or False", grade)
    rule(grade.status == "ok", "timeouts and errors must not occur on plain answers", grade)
    for name, value in grade.numbers.items():
        try:
            checked_metric(name, value, "numbers")
        except PluginError as error:
            rule(False, str(error))


def _is(value: object, kind: type) -> bool:
    """Whether a plugin gave what its types say."""
    return isinstance(value, kind)
