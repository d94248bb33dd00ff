"""Aggregator `seq`: every sequence of the scope weighs the same (J_off of Eq. 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ampo_registry import AggregatorSpec, Totals

if TYPE_CHECKING:
    import torch


class Sequencewise(AggregatorSpec):
    """Mean over sequences of the mean over each sequence's tokens: length does not matter."""

    type: Literal["seq"] = "seq"

    def token_weights(self, lengths: torch.Tensor, totals: Totals) -> torch.Tensor:
        """1/(sequences·length), 0 for an empty sequence: `lengths` [sequences] -> [sequences] float64."""
        import torch

        lengths = lengths.to(torch.float64)
        weights = 1.0 / (max(totals.sequences, 1) * lengths.clamp(min=1.0))
        return torch.where(lengths > 0, weights, torch.zeros_like(weights))
