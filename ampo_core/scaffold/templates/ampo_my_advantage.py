"""Advantage `my_advantage`: by how many of its group a response beats, not by how much."""

from typing import TYPE_CHECKING, Literal

from ampo_registry import AdvantageSpec, ComponentSpec, hookimpl

if TYPE_CHECKING:
    import torch


class MyAdvantage(AdvantageSpec):
    """Wins minus losses against the others of the group, over its size: from -1 to 1, whatever the scale of rewards."""

    type: Literal["my_advantage"] = "my_advantage"

    def advantages(
        self, rewards: "torch.Tensor", correct: "torch.Tensor", off_policy: "torch.Tensor"
    ) -> "torch.Tensor":
        """`rewards` [n] -> [n], both float64; exactly 0 where all rewards are equal."""
        return (rewards[:, None] - rewards[None, :]).sign().mean(dim=1)


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """What this distribution brings."""
    return [MyAdvantage]
