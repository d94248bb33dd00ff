"""Loss `cispo`: the clipped ratio as a weight without gradient of −A log π (MiniMax-M1, arXiv 2506.13585)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from ampo_registry import LossSpec, LossView
from pydantic import Field, NonNegativeFloat

if TYPE_CHECKING:
    import torch


class Cispo(LossSpec):
    """No token loses its gradient: the clip bounds how much it counts, not whether."""

    type: Literal["cispo"] = "cispo"
    low: Annotated[float, Field(ge=0.0, le=1.0)] | None = Field(
        default=None, description="the weight is at least 1 - low; null = no bound"
    )
    high: NonNegativeFloat | None = Field(default=0.2, description="the weight is at most 1 + high; null = no bound")
    zero_without_advantage: ClassVar[bool] = True

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"old"})

    def token_losses(self, view: LossView) -> torch.Tensor:
        """−sg(clip(r)) A log π of each token; measures for how many a cut ratio makes a difference."""
        ratio = (view.log_probs.detach() - view.old).exp()
        weight = ratio
        if self.low is not None:
            weight = weight.clamp(min=1.0 - self.low)
        if self.high is not None:
            weight = weight.clamp(max=1.0 + self.high)
        view.measure("clip_fraction", (weight != ratio) & (view.advantages != 0))
        return -weight * view.advantages * view.log_probs
