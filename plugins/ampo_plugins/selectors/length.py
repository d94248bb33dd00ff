"""Selector `length`: by the number of tokens of the teacher answer (an ablation of Table 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ampo_registry import Guidance, Selection, SelectionContext, SelectionRequest, SelectorSpec
from pydantic import Field


class Length(SelectorSpec):
    """Prefer the shortest or the longest teacher answers; equal lengths keep the order of the pool."""

    type: Literal["length"] = "length"
    prefer: Literal["short", "long"] = Field(default="short", description="which end of the order is chosen first")

    def select(self, requests: Sequence[SelectionRequest], context: SelectionContext) -> list[list[Selection]]:
        """The k candidates at the preferred end, in that order."""
        return [
            [Selection(guidance) for guidance in sorted(request.candidates, key=self._key)[: request.k]]
            for request in requests
        ]

    def _key(self, guidance: Guidance) -> int:
        length = len(guidance.token_ids)
        return length if self.prefer == "short" else -length
