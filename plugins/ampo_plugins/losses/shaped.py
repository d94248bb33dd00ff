"""Loss `shaped`: −f(r̂)Â of Eq. 7, r̂ = π_θ/π_φ: teachers' tokens (from LUFFY, arXiv 2504.14945)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from ampo_registry import BuildContext, ComponentField, Loss, LossSpec, LossView, Shaping, ShapingSpec
from ampo_registry.protocols import LARGEST_LOG_RATIO
from pydantic import Field, NonNegativeFloat

if TYPE_CHECKING:
    import torch

Width = Annotated[float, Field(ge=0.0, le=1.0)]


class Shaped(LossSpec):
    """The shaped importance ratio of tokens that a teacher wrote."""

    type: Literal["shaped"] = "shaped"
    shaping: Annotated[ShapingSpec, ComponentField("shaping")] = Field(
        default="ratio", validate_default=True, description="f(π_θ/π_φ)"
    )
    clip: tuple[Width, NonNegativeFloat] | None = Field(
        default=None, description="widths [low, high]: the shaped ratio is cut to 1 - low and 1 + high"
    )
    behaviour_policy: Literal["one", "recorded"] = Field(
        default="one", description="π_φ: 1, or the teacher's recorded log-probs"
    )
    zero_without_advantage: ClassVar[bool] = True

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"behaviour"} if self.behaviour_policy == "recorded" else ())

    def warnings(self) -> Sequence[tuple[str, str]]:
        if self.clip is not None and self.behaviour_policy == "one":
            text = "the shaped ratio never exceeds 1 here, so this clip can only bind for negative advantages"
            return [("clip", text)]
        return []

    def build(self, context: BuildContext) -> Loss:
        return _ShapedLoss(self, context.build(self.shaping))


class _ShapedLoss:
    def __init__(self, spec: Shaped, shaping: Shaping) -> None:
        self._spec, self._shaping = spec, shaping

    def token_losses(self, view: LossView) -> torch.Tensor:
        """−f(r̂)Â of each token."""
        import torch

        log_ratio = view.log_probs - view.behaviour if self._spec.behaviour_policy == "recorded" else view.log_probs
        shaped = self._shaping.shape(log_ratio.clamp(max=LARGEST_LOG_RATIO))
        losses = -view.advantages * shaped
        if self._spec.clip is not None:
            low, high = self._spec.clip
            losses = torch.maximum(losses, -view.advantages * shaped.clamp(1.0 - low, 1.0 + high))
        return losses
