"""Loss `clip`: −CLIP(r, A, ε) of Eq. 2, r = π_θ/π_old (PPO, arXiv 1707.06347; dual clip, arXiv 1912.09729)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from ampo_registry import LossSpec, LossView
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

if TYPE_CHECKING:
    import torch


class Clip(LossSpec):
    """The ratio to the old policy, cut where a token would gain more."""

    type: Literal["clip"] = "clip"
    low: Annotated[float, Field(ge=0.0, le=1.0)] | None = Field(
        default=0.2, description="the ratio is cut at 1 - low; null = not"
    )
    high: NonNegativeFloat | None = Field(default=0.2, description="the ratio is cut at 1 + high; null = not")
    dual: Annotated[float, Field(gt=1.0)] | None = Field(
        default=None, description="c: for negative advantages the ratio counts at most c; null = none"
    )
    log_ratio_clamp: PositiveFloat | None = Field(
        default=None, description="the log-ratio is cut to ± this; null = not"
    )
    zero_without_advantage: ClassVar[bool] = True

    @model_validator(mode="after")
    def _dual_is_above_high(self) -> Self:
        if self.dual is not None and self.high is not None and self.dual <= 1 + self.high:
            raise ValueError(f"dual is {self.dual:g}, must be greater than 1 + high = {1 + self.high:g}")
        return self

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"old"})

    def token_losses(self, view: LossView) -> torch.Tensor:
        """−min(rA, clip(r)A) of each token; measures for how many the clip binds."""
        import torch

        log_ratio = view.log_probs - view.old
        if self.log_ratio_clamp is not None:
            log_ratio = log_ratio.clamp(-self.log_ratio_clamp, self.log_ratio_clamp)
        ratio = log_ratio.exp()
        losses = -view.advantages * ratio
        if self.low is not None or self.high is not None:
            least = None if self.low is None else 1.0 - self.low
            bounded = -view.advantages * ratio.clamp(least, None if self.high is None else 1.0 + self.high)
            view.measure("clip_fraction", bounded > losses)
            losses = torch.maximum(losses, bounded)
        if self.dual is not None:
            capped = torch.minimum(losses, -view.advantages * self.dual)
            losses = torch.where(view.advantages < 0, capped, losses)
        return losses
