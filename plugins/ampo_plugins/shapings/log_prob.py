"""Shaping `log_prob`: f(x) = weight·log x. With π_φ = 1 this is weighted imitation of the teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ampo_registry import ShapingSpec
from pydantic import Field, PositiveFloat

if TYPE_CHECKING:
    import torch


class LogProb(ShapingSpec):
    """The log of the importance ratio: every token pulls alike, however unlikely."""

    type: Literal["log_prob"] = "log_prob"
    weight: PositiveFloat = Field(default=0.1, description="factor of the log-ratio")

    def shape(self, log_ratio: torch.Tensor) -> torch.Tensor:
        """weight·log_ratio: [tokens] -> [tokens]."""
        return self.weight * log_ratio
