"""Intervention `keep`: changes nothing; for auxiliary terms that train the selected answers beside the group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ampo_registry import Guided, Intervened, InterventionRequest, InterventionSpec, StepContext


class Keep(InterventionSpec):
    """Every group stays as it was sampled."""

    type: Literal["keep"] = "keep"

    def intervene(self, requests: Sequence[InterventionRequest], context: StepContext) -> Intervened:
        return Intervened(tuple(Guided((request.samples,)) for request in requests))
