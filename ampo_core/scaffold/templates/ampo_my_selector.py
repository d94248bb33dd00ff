"""Selector `my_selector`: takes the teacher answers that are written most like the student writes."""

from collections.abc import Sequence
from typing import Literal

from ampo_registry import ComponentSpec, ScoringSelectorSpec, SelectionContext, SelectionRequest, hookimpl


class MySelector(ScoringSelectorSpec):
    """Prefer the teacher answer most of whose tokens stand in the student's own responses too."""

    type: Literal["my_selector"] = "my_selector"

    def score(self, requests: Sequence[SelectionRequest], context: SelectionContext) -> list[list[float]]:
        """A number for each candidate of each request; higher is better."""
        return [[_shared(candidate.token_ids, _own(r)) for candidate in r.candidates] for r in requests]


def _own(request: SelectionRequest) -> set[int]:
    return {token for rollout in request.rollouts for token in rollout.token_ids}


def _shared(tokens: Sequence[int], own: set[int]) -> float:
    return sum(token in own for token in tokens) / len(tokens)


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """What this distribution brings."""
    return [MySelector]
