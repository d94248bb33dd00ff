"""Trigger `adaptive`: guidance only where the policy fails altogether (Eq. 3)."""

from __future__ import annotations

from typing import Literal

from ampo_registry import RolloutGroup, TriggerContext, TriggerSpec


class Adaptive(TriggerSpec):
    """Fire iff the reward of every rollout is below the threshold."""

    type: Literal["adaptive"] = "adaptive"

    def fires(self, group: RolloutGroup, context: TriggerContext) -> bool:
        """True iff R_i < τ for all i; a group without rollouts needs nothing."""
        return bool(group.grades) and len(group.wrong) == len(group.grades)
