"""Advantage `group_normalized`: GRPO's (R - mean)/std over the augmented group (Eq. 1 and 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ampo_registry import AdvantageSpec
from pydantic import Field, NonNegativeFloat

from ampo_plugins.advantages.statistics import all_equal, without_correct

if TYPE_CHECKING:
    import torch


class GroupNormalized(AdvantageSpec):
    """Rewards centred and scaled by their own group, teacher answers included."""

    type: Literal["group_normalized"] = "group_normalized"
    ddof: Literal[0, 1] = Field(default=0, description="0 divides the variance by G, 1 by G - 1")
    eps: NonNegativeFloat = Field(default=1e-6, description="added to std")
    zero_without_correct: bool = Field(
        default=False,
        description="no advantage in a group without a correct response, so that format alone is not learnt",
    )

    def advantages(self, rewards: torch.Tensor, correct: torch.Tensor, off_policy: torch.Tensor) -> torch.Tensor:
        """`rewards` [G], `correct` [G] bool, `off_policy` [G] bool -> [G] float64; exactly 0 for equal rewards."""
        rewards = rewards.double()
        if all_equal(rewards) or (self.zero_without_correct and without_correct(correct)):
            return rewards.new_zeros(rewards.shape)
        return (rewards - rewards.mean()) / (rewards.std(correction=self.ddof) + self.eps)
