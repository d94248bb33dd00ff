"""Intervention `replace`: teacher answers in the place of wrong rollouts (Eq. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ampo_registry import Guided, Intervened, InterventionRequest, InterventionSpec, StepContext


class Replace(InterventionSpec):
    """Each selected answer takes the place of one wrong rollout, drawn at random; the group keeps its size."""

    type: Literal["replace"] = "replace"

    def intervene(self, requests: Sequence[InterventionRequest], context: StepContext) -> Intervened:
        guided = []
        for request in requests:
            answers = [request.answer(selection) for selection in request.selections]
            guided.append(Guided((request.with_wrong_replaced(answers),)))
        return Intervened(tuple(guided))
