"""Advantage `on_policy_baseline`: mean and std of the policy's own responses only (LUFFY, arXiv 2504.14945)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeFloat

from ampo_plugins.advantages.group import GroupAdvantage, all_equal

if TYPE_CHECKING:
    import torch

TINY_STD = 1e-6
"""A std below this counts as 1: else a teacher's advantage is blown up where all rollouts got the same reward."""


class OnPolicyBaseline(GroupAdvantage):
    """Teacher answers are measured against the policy's level and do not move it."""

    type: Literal["on_policy_baseline"] = "on_policy_baseline"
    ddof: Literal[0, 1] = Field(default=0, description="0 divides the variance by n, 1 by n - 1")
    eps: NonNegativeFloat = Field(default=1e-6, description="added to std")

    def of_unequal(self, rewards: torch.Tensor, off_policy: torch.Tensor) -> torch.Tensor:
        """`rewards` [G], `off_policy` [G] bool -> [G]. A group of teacher answers alone is its own baseline."""
        mean, std = self._baseline(rewards if bool(off_policy.all()) else rewards[~off_policy])
        return (rewards - mean) / (std + self.eps)

    def _baseline(self, members: torch.Tensor) -> tuple[float, float]:
        """Mean and std of `members` [n >= 1]."""
        if all_equal(members):
            return members[0].item(), 1.0
        std = members.std(correction=self.ddof).item()
        return members.mean().item(), std if std >= TINY_STD else 1.0
