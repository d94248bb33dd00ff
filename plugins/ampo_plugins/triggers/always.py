"""Trigger `always`: guidance wherever there is a slot for it (an ablation of Table 3, and LUFFY)."""

from __future__ import annotations

from typing import Literal

from ampo_registry import RolloutGroup, TriggerContext, TriggerSpec


class Always(TriggerSpec):
    """Fire for every group that has a wrong rollout."""

    type: Literal["always"] = "always"

    def fires(self, group: RolloutGroup, context: TriggerContext) -> bool:
        """True iff R_i < τ for some i."""
        return bool(group.wrong)
