"""Shaping `p_plus_log_prob`: f(x) = x + weight·log x."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ampo_registry import ShapingSpec
from pydantic import Field, PositiveFloat

if TYPE_CHECKING:
    import torch


class PPlusLogProb(ShapingSpec):
    """The importance ratio plus a constant pull on every token."""

    type: Literal["p_plus_log_prob"] = "p_plus_log_prob"
    weight: PositiveFloat = Field(default=0.1, description="factor of the log-ratio")

    def shape(self, log_ratio: torch.Tensor) -> torch.Tensor:
        """exp(log_ratio) + weight·log_ratio: [tokens] -> [tokens]."""
        return log_ratio.exp() + self.weight * log_ratio
