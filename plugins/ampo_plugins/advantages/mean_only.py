"""Advantage `mean_only`: R - mean over the augmented group (Dr. GRPO, arXiv 2503.20783)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ampo_registry import AdvantageSpec
from pydantic import Field

from ampo_plugins.advantages.statistics import all_equal, without_correct

if TYPE_CHECKING:
    import torch


class MeanOnly(AdvantageSpec):
    """Rewards centred by their group, not scaled: easy and hard questions keep their weight."""

    type: Literal["mean_only"] = "mean_only"
    zero_without_correct: bool = Field(
        default=False,
        description="no advantage in a group without a correct response, so that format alone is not learnt",
    )

    def advantages(self, rewards: torch.Tensor, correct: torch.Tensor, off_policy: torch.Tensor) -> torch.Tensor:
        """`rewards` [G], `correct` [G] bool, `off_policy` [G] bool -> [G] float64; exactly 0 for equal rewards."""
        rewards = rewards.double()
        if all_equal(rewards) or (self.zero_without_correct and without_correct(correct)):
            return rewards.new_zeros(rewards.shape)
        return rewards - rewards.mean()
