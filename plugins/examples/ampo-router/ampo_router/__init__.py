"""Intervention `router`: a group that failed is not compared; the supervised term alone learns from its question."""

from __future__ import annotations

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
from pydantic import Field


class Router(InterventionSpec):
    """Sends failed groups to a supervised term: its samples are the selected answers, and no advantage sees the group.
    One without a usable answer stays as it was sampled."""

    type: Literal["router"] = "router"
    term: str = Field(default="sft", description="the term of objective.auxiliary that trains the answers")

    @property
    def terms(self) -> frozenset[str]:
        return frozenset({self.term})

    def intervene(self, requests: Sequence[InterventionRequest], context: StepContext) -> Intervened:
        guided: list[Guided] = []
        for request in requests:
            answers = tuple(request.answer(selection, term=self.term) for selection in request.selections)
            guided.append(Guided(groups=(), extra=answers) if answers else Guided((request.samples,)))
        return Intervened(tuple(guided))


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """What this distribution brings."""
    return [Router]
