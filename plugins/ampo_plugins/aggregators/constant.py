"""Aggregator `constant`: a fixed normaliser instead of the lengths at hand (Dr. GRPO, arXiv 2503.20783)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ampo_registry import AggregatorSpec, Totals
from pydantic import Field, PositiveInt

if TYPE_CHECKING:
    import torch


class Constant(AggregatorSpec):
    """Sum over tokens divided by a constant length, and by the number of sequences if asked for."""

    type: Literal["constant"] = "constant"
    length: PositiveInt | None = Field(default=None, description="L; null = max_response_tokens")
    per_sequence: bool = Field(default=False, description="divide by the number of sequences too")

    def token_weights(self, lengths: torch.Tensor, totals: Totals) -> torch.Tensor:
        """1/L, or 1/(sequences·L) with `per_sequence`: `lengths` [sequences] -> [sequences] float64."""
        import torch

        length = self.length if self.length is not None else totals.max_response_tokens
        sequences = max(totals.sequences, 1) if self.per_sequence else 1
        return torch.full(lengths.shape, 1.0 / (sequences * length), dtype=torch.float64, device=lengths.device)

    def depends_on_count(self) -> bool:
        """Only with `per_sequence`."""
        return self.per_sequence
