"""Advantage `group_normalized`: GRPO's (R - mean)/std over the augmented group (Eq. 1 and 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeFloat

from ampo_plugins.advantages.group import GroupAdvantage

if TYPE_CHECKING:
    import torch


class GroupNormalized(GroupAdvantage):
    """Rewards centred and scaled by their own group, teacher answers included."""

    type: Literal["group_normalized"] = "group_normalized"
    ddof: Literal[0, 1] = Field(default=0, description="0 divides the variance by G, 1 by G - 1")
    eps: NonNegativeFloat = Field(default=1e-6, description="added to std")

    def of_unequal(self, rewards: torch.Tensor, off_policy: torch.Tensor) -> torch.Tensor:
        """(R - mean)/(std + eps) of `rewards` [G]."""
        return (rewards - rewards.mean()) / (rewards.std(correction=self.ddof) + self.eps)
