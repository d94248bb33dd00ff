"""Shaping `power`: f(x) = x^exponent; exponent 0.5 is the square root."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ampo_registry import ShapingSpec
from pydantic import Field, PositiveFloat

if TYPE_CHECKING:
    import torch

LARGEST = 80.0
"""Larger powers of e are cut off: float32 has room for e^80 and its gradient, and for little more."""


class Power(ShapingSpec):
    """A power of the importance ratio."""

    type: Literal["power"] = "power"
    exponent: PositiveFloat = Field(default=0.5, description="below 1 it lifts unlikely tokens")

    def shape(self, log_ratio: torch.Tensor) -> torch.Tensor:
        """exp(exponent·log_ratio), whose gradient stays finite where that of x^exponent at x = 0 would not:
        [tokens] -> [tokens]."""
        return (self.exponent * log_ratio).clamp(max=LARGEST).exp()
