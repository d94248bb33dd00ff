"""Conformance of selectors."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

from ampo_registry.protocols import BuildContext, Selector
from ampo_registry.selectors import ScoringSelectorSpec, SelectorSpec
from ampo_registry.testing.common import Rules, check_memory, check_spec_class
from ampo_registry.testing.examples import example_outcomes, example_requests
from ampo_registry.testing.steps import example_step, services_of
from ampo_registry.types import Selection, SelectionRequest


def check_selector(
    spec: SelectorSpec, requests: Callable[[int], Sequence[SelectionRequest]] = example_requests
) -> None:
    """A selector chooses among the candidates, at most k, none twice. It may learn from what it is asked and told:
    two fresh builds that get the same calls choose alike, and so does one that goes on from a checkpoint.

    `requests` makes requests from a seed; give your own if the selector needs more than the examples hold.
    """
    check_spec_class(spec)
    rule = Rules(spec)
    rule(_choose(rule, spec.build(BuildContext()), []) == [], "no requests must give no selections")
    component = spec.build(BuildContext())
    for seed in range(3):
        if isinstance(component, ScoringSelectorSpec):
            _check_scores(rule, component, requests(seed))
        given = requests(seed)
        kept = copy.deepcopy(list(given))
        for request, selections in zip(given, _choose(rule, component, given), strict=True):
            _check_selections(rule, request, selections)
        rule(kept == list(given), "requests must be left as they are")
        for request in requests(seed):
            alone = _choose(rule, component, [request])
            _check_selections(rule, request, alone[0])

    def act(component: Selector, number: int) -> object:
        given = list(requests(number))
        chosen = _choose(rule, component, given, step=number + 1)
        solved = [request.question for request in requests(number - 1)] if number else []
        if (tell := getattr(component, "feedback", None)) is not None:
            tell(example_outcomes(given, chosen, number + 1, solved))
        return chosen

    check_memory(rule, spec, act)


def _check_scores(rule: Rules, component: ScoringSelectorSpec, requests: Sequence[SelectionRequest]) -> None:
    with rule.asking("score"):
        scores = component.score(requests, example_step(services=services_of(rule.spec)))
    rule(len(scores) == len(requests), "there must be one list of scores for each request", len(scores))
    for request, found in zip(requests, scores, strict=True):
        rule(len(found) == len(request.candidates), "there must be one score for each candidate", found)
        rule(not any(map(math.isnan, found)), "a score must be a number, not NaN", found)


def _choose(
    rule: Rules, component: Selector, requests: Sequence[SelectionRequest], step: int = 1
) -> list[list[Selection]]:
    with rule.asking("select"):
        chosen = component.select(requests, example_step(step, services=services_of(rule.spec)))
    if requests:
        rule(len(chosen) == len(requests), "there must be one list of selections for each request", len(chosen))
    return chosen


def _check_selections(rule: Rules, request: SelectionRequest, selections: Sequence[Selection]) -> None:
    rule(len(selections) <= request.k, f"at most k = {request.k} may be selected", len(selections))
    places = [_place(request, selection) for selection in selections]
    rule(None not in places, "a selection must be one of the request's own candidates", selections)
    rule(len(set(places)) == len(places), "no candidate may be selected twice", selections)
    scores = [selection.score for selection in selections if selection.score is not None]
    rule(not any(map(math.isnan, scores)), "a score must be a number or None", scores)


def _place(request: SelectionRequest, selection: Selection) -> int | None:
    """Which candidate it is; by identity, since two teachers may have given equal answers."""
    return next((i for i, candidate in enumerate(request.candidates) if candidate is selection.guidance), None)
