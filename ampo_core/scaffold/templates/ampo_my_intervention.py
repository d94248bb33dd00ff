"""Intervention `my_intervention`: teacher answers beside what the student wrote, in the place of nothing."""

from collections.abc import Sequence
from typing import Literal

from ampo_registry import (
    ComponentSpec,
    Guided,
    Intervened,
    InterventionRequest,
    InterventionSpec,
    StepContext,
    hookimpl,
)


class MyIntervention(InterventionSpec):
    """The group grows by its selected answers; no response leaves it."""

    type: Literal["my_intervention"] = "my_intervention"

    def intervene(self, requests: Sequence[InterventionRequest], context: StepContext) -> Intervened:
        """What becomes of each group that the trigger fired for, in order."""
        answers = [tuple(request.answer(selection) for selection in request.selections) for request in requests]
        context.log("my_intervention/answers", sum(map(len, answers)))
        return Intervened(tuple(Guided(((*r.samples, *found),)) for r, found in zip(requests, answers, strict=True)))


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """What this distribution brings."""
    return [MyIntervention]
