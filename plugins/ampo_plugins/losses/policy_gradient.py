"""Loss `policy_gradient`: −A log π (REINFORCE, Williams 1992): no ratio, for batches of a single update."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from ampo_registry import LossSpec, LossView

if TYPE_CHECKING:
    import torch


class PolicyGradient(LossSpec):
    """The plain policy gradient: advantage times log-prob."""

    type: Literal["policy_gradient"] = "policy_gradient"
    zero_without_advantage: ClassVar[bool] = True

    def token_losses(self, view: LossView) -> torch.Tensor:
        """−A log π of each token."""
        return -view.advantages * view.log_probs
