"""Shaping `ratio`: f(x) = x/(x+γ), the policy shaping of Eq. 7 (from LUFFY, arXiv 2504.14945)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from ampo_registry import ShapingSpec
from pydantic import Field, PositiveFloat

if TYPE_CHECKING:
    import torch


class Ratio(ShapingSpec):
    """Lift the gradient of tokens the policy finds unlikely: f'(x) = γ/(x+γ)² is largest near x = 0."""

    type: Literal["ratio"] = "ratio"
    gamma: PositiveFloat = Field(default=0.1, description="γ: the smaller, the more weight on unlikely tokens")

    def shape(self, log_ratio: torch.Tensor) -> torch.Tensor:
        """x/(x+γ) = sigmoid(log x - log γ), which neither overflows nor divides: [tokens] -> [tokens]."""
        import torch

        return torch.sigmoid(log_ratio - math.log(self.gamma))
