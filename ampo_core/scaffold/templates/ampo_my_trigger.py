"""Trigger `my_trigger`: guidance for groups of which most responses are wrong."""

from typing import Literal

from ampo_registry import ComponentSpec, RolloutGroup, TriggerContext, TriggerSpec, hookimpl
from pydantic import Field


class MyTrigger(TriggerSpec):
    """Fire iff at least so large a share of the group's responses is wrong."""

    type: Literal["my_trigger"] = "my_trigger"
    share: float = Field(default=0.75, gt=0.0, le=1.0, description="of responses that are wrong; 1 is `adaptive`")

    def fires(self, group: RolloutGroup, context: TriggerContext) -> bool:
        """True iff the group should get teacher answers."""
        return bool(group.grades) and len(group.wrong) >= self.share * len(group.grades)


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """What this distribution brings."""
    return [MyTrigger]
