"""Selector `random`: any teacher answers, drawn without replacement (an ablation of Table 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ampo_registry import Selection, SelectionContext, SelectionRequest, SelectorSpec


class RandomChoice(SelectorSpec):
    """Draw teacher answers uniformly with the request's own generator."""

    type: Literal["random"] = "random"

    def select(self, requests: Sequence[SelectionRequest], context: SelectionContext) -> list[list[Selection]]:
        """k distinct candidates, or all of them where there are fewer."""
        return [
            [Selection(g) for g in request.rng.sample(request.candidates, min(request.k, len(request.candidates)))]
            for request in requests
        ]
