"""A third party's selector, whole."""

from collections.abc import Sequence
from statistics import fmean
from typing import Literal

from ampo_registry import ComponentSpec, ScoringSelectorSpec, SelectionContext, SelectionRequest, hookimpl


class NearestLength(ScoringSelectorSpec):
    """Prefer the teacher answer whose length is nearest to the student's own."""

    type: Literal["nearest_length"] = "nearest_length"

    def score(self, requests: Sequence[SelectionRequest], context: SelectionContext) -> list[list[float]]:
        own = [fmean(len(rollout.token_ids) for rollout in request.rollouts) for request in requests]
        return [[-abs(len(c.token_ids) - n) for c in r.candidates] for r, n in zip(requests, own, strict=True)]


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """What this distribution brings."""
    return [NearestLength]
