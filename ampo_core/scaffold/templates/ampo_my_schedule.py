"""Schedule `my_schedule`: a number that halves every so many steps."""

import math
from collections.abc import Mapping
from typing import Literal

from ampo_registry import ComponentSpec, ScheduleSpec, hookimpl
from pydantic import Field, NonNegativeFloat, PositiveFloat


class MySchedule(ScheduleSpec):
    """`start` in the first step, half of it `half_life` steps later, and so on."""

    type: Literal["my_schedule"] = "my_schedule"
    start: NonNegativeFloat = Field(default=1.0, description="in the first step", allow_inf_nan=False)
    half_life: PositiveFloat = Field(default=50.0, description="steps", allow_inf_nan=False)

    def value(self, step: int, steps: int, metrics: Mapping[str, float]) -> float:
        """The number at `step` (from 1) of `steps`; `metrics` are those of the step before."""
        return self.start * math.exp2((1 - step) / self.half_life)

    def range(self) -> tuple[float, float]:
        """The least and the largest value."""
        return 0.0, self.start


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """What this distribution brings."""
    return [MySchedule]
