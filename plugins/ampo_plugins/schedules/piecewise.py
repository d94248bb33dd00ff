"""Schedule `piecewise`: a number for each stretch of the run, as a table of steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from ampo_registry import ScheduleSpec
from pydantic import Field, PositiveInt, field_validator

Number = Annotated[float, Field(allow_inf_nan=False)]


class Piecewise(ScheduleSpec):
    """Constant numbers, each from its step on."""

    type: Literal["piecewise"] = "piecewise"
    start: Number = Field(description="value before the first step of `at`")
    at: list[tuple[PositiveInt, Number]] = Field(min_length=1, description="[step, value from this step on], in order")

    @field_validator("at")
    @classmethod
    def _in_order(cls, at: list[tuple[int, float]]) -> list[tuple[int, float]]:
        steps = [step for step, _ in at]
        if steps != sorted(set(steps)):
            raise ValueError(f"the steps {steps} must rise")
        return at

    def range(self) -> tuple[float, float]:
        values = [self.start, *(value for _, value in self.at)]
        return min(values), max(values)

    def value(self, step: int, steps: int, metrics: Mapping[str, float]) -> float:
        """The value of the last step of `at` that is not after `step`."""
        reached = [value for first, value in self.at if first <= step]
        return reached[-1] if reached else self.start
