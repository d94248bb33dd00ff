"""What the schedules between two numbers share: where they begin and end, and over which steps."""

from __future__ import annotations

from collections.abc import Mapping

from ampo_registry import ScheduleSpec
from pydantic import Field, NonNegativeInt, PositiveInt


class Ramp(ScheduleSpec):
    """From `start` to `end` over `steps` steps after `delay`; constant before and after."""

    start: float = Field(description="value up to the end of the delay", allow_inf_nan=False)
    end: float = Field(description="value from the last step of the ramp on", allow_inf_nan=False)
    steps: PositiveInt | None = Field(default=None, description="length in steps; null = to the end of the run")
    delay: NonNegativeInt = Field(default=0, description="steps at `start` before the ramp begins")

    def range(self) -> tuple[float, float]:
        return min(self.start, self.end), max(self.start, self.end)

    def value(self, step: int, steps: int, metrics: Mapping[str, float]) -> float:
        """`start` in the first step after the delay, `end` in the last one of the ramp."""
        length = self.steps if self.steps is not None else steps - self.delay
        share = min(max((step - self.delay - 1) / max(length - 1, 1), 0.0), 1.0)
        way = self.bent(share)
        least, largest = self.range()
        return min(max((1.0 - way) * self.start + way * self.end, least), largest)

    def bent(self, share: float) -> float:
        """How much of the way is done after `share` of the steps; both from 0 to 1."""
        return share
