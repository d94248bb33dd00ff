"""Shaping `identity`: the importance ratio itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ampo_registry import ShapingSpec

if TYPE_CHECKING:
    import torch


class Identity(ShapingSpec):
    """No shaping: f(x) = x."""

    type: Literal["identity"] = "identity"

    def shape(self, log_ratio: torch.Tensor) -> torch.Tensor:
        """x = exp(log_ratio): [tokens] -> [tokens]."""
        return log_ratio.exp()
