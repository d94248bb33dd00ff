"""What the advantages of this folder share."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from ampo_registry import AdvantageSpec
from pydantic import Field

if TYPE_CHECKING:
    import torch


class GroupAdvantage(AdvantageSpec):
    """An advantage that is 0 where the group has nothing to tell apart, and elsewhere what `of_unequal` says."""

    zero_without_correct: bool = Field(
        default=False,
        description="no advantage in a group without a correct response, so that format alone is not learnt",
    )

    def advantages(self, rewards: torch.Tensor, correct: torch.Tensor, off_policy: torch.Tensor) -> torch.Tensor:
        """`rewards` [G], `correct` [G] bool, `off_policy` [G] bool -> [G] float64; exactly 0 for equal rewards."""
        rewards = rewards.double()
        if all_equal(rewards) or (self.zero_without_correct and not correct.any()):
            return rewards.new_zeros(rewards.shape)
        return self.of_unequal(rewards, off_policy)

    @abstractmethod
    def of_unequal(self, rewards: torch.Tensor, off_policy: torch.Tensor) -> torch.Tensor:
        """`rewards` [G] float64, not all the same number, `off_policy` [G] bool -> [G]."""


def all_equal(rewards: torch.Tensor) -> bool:
    """True iff all of `rewards` [n] are the same number, or there are none.

    Tested before any arithmetic: the mean of equal floats need not be that float.
    """
    return rewards.numel() == 0 or bool((rewards == rewards[0]).all())
