"""What the advantages of this folder share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def all_equal(rewards: torch.Tensor) -> bool:
    """True iff all of `rewards` [n] are the same number, or there are none.

    Tested before any arithmetic: the mean of equal floats need not be that float.
    """
    return rewards.numel() == 0 or bool((rewards == rewards[0]).all())


def without_correct(correct: torch.Tensor) -> bool:
    """True iff no response of the group is correct (`correct` [G] bool)."""
    return not bool(correct.any())
