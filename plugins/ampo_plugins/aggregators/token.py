"""Aggregator `token`: every token of the scope weighs the same (Eq. 2, and J_on of Eq. 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ampo_registry import AggregatorSpec, Totals

if TYPE_CHECKING:
    import torch


class Tokenwise(AggregatorSpec):
    """Mean over tokens: long responses weigh more than short ones."""

    type: Literal["token"] = "token"

    def token_weights(self, lengths: torch.Tensor, totals: Totals) -> torch.Tensor:
        """1/tokens for every sequence: `lengths` [sequences] -> [sequences] float64."""
        import torch

        # A scope without tokens has nothing to weigh; any finite number will do.
        weight = 1.0 / max(totals.tokens, 1)
        return torch.full(lengths.shape, weight, dtype=torch.float64, device=lengths.device)
