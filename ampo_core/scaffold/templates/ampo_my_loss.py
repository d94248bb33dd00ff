"""Loss `my_loss`: the ratio behind a soft gate, where `clip` cuts it off."""

from typing import TYPE_CHECKING, ClassVar, Literal

from ampo_registry import ComponentSpec, LossSpec, LossView, hookimpl
from pydantic import Field, PositiveFloat

if TYPE_CHECKING:
    import torch


class MyLoss(LossSpec):
    """−A · 4/t · sigmoid(t (r − 1)): slope 1 at r = π/π_old = 1, and less the further the policy has moved."""

    type: Literal["my_loss"] = "my_loss"
    sharpness: PositiveFloat = Field(default=4.0, description="t: the larger, the sooner a token stops to count")
    zero_without_advantage: ClassVar[bool] = True

    @property
    def needs(self) -> frozenset[str]:
        """What the view holds besides log-probs and advantages."""
        return frozenset({"old"})

    def token_losses(self, view: LossView) -> "torch.Tensor":
        """[tokens], differentiable through `view.log_probs`."""
        ratio = (view.log_probs - view.old).clamp(max=20.0).exp()
        gate = (self.sharpness * (ratio - 1.0)).sigmoid()
        view.measure("my_loss_gate", gate)
        return -view.advantages * gate * 4.0 / self.sharpness


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """What this distribution brings."""
    return [MyLoss]
