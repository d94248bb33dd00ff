"""Advantage `mean_only`: R - mean over the augmented group (Dr. GRPO, arXiv 2503.20783)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ampo_plugins.advantages.group import GroupAdvantage

if TYPE_CHECKING:
    import torch


class MeanOnly(GroupAdvantage):
    """Rewards centred by their group, not scaled: easy and hard questions keep their weight."""

    type: Literal["mean_only"] = "mean_only"

    def of_unequal(self, rewards: torch.Tensor, off_policy: torch.Tensor) -> torch.Tensor:
        """R - mean of `rewards` [G]."""
        return rewards - rewards.mean()
