"""Loss `gspo`: the ratio of a whole sequence, exp of its tokens' mean log-ratio, clipped (GSPO, arXiv 2507.18071)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from ampo_registry import LossSpec, LossView
from pydantic import Field, NonNegativeFloat

if TYPE_CHECKING:
    import torch


class Gspo(LossSpec):
    """One ratio a sequence, so that a sequence is clipped as a whole. Goes with the aggregator `seq`."""

    type: Literal["gspo"] = "gspo"
    low: Annotated[float, Field(ge=0.0, le=1.0)] = Field(default=3e-4, description="the ratio is cut at 1 - low")
    high: NonNegativeFloat = Field(default=4e-4, description="the ratio is cut at 1 + high")
    zero_without_advantage: ClassVar[bool] = True

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"old"})

    def token_losses(self, view: LossView) -> torch.Tensor:
        """−min(sA, clip(s)A) of each token, s its sequence's ratio; measures for how many tokens the clip binds."""
        import torch

        ratio = view.spread(view.mean(view.log_probs - view.old).exp())
        losses = -view.advantages * ratio
        bounded = -view.advantages * ratio.clamp(1.0 - self.low, 1.0 + self.high)
        view.measure("clip_fraction", bounded > losses)
        return torch.maximum(losses, bounded)
