"""Reward `my_reward`: a number that is near enough."""

import math
from collections.abc import Sequence
from typing import Literal

from ampo_registry import ComponentSpec, Grade, GradeRequest, RewardSpec, hookimpl
from pydantic import Field, NonNegativeFloat


class MyReward(RewardSpec):
    """Correct iff the number in the answer tags is as far from the ground truth as `tolerance` says, or nearer."""

    type: Literal["my_reward"] = "my_reward"
    tolerance: NonNegativeFloat = Field(default=1e-6, description="largest difference", allow_inf_nan=False)

    def grade(self, requests: Sequence[GradeRequest]) -> list[Grade]:
        """One grade for each request, in order."""
        return [self.combine(self._near(r.text, r.answer), self.formatted(r.text)) for r in requests]

    def _near(self, text: str, answer: str) -> bool:
        said = number(text.rpartition("<answer>")[2].partition("</answer>")[0])
        return said is not None and abs(said - float(answer)) <= self.tolerance

    def check_truth(self, answer: str) -> str | None:
        """Why no response could be verified against `answer`, or None."""
        return "it is not a number" if number(answer) is None else None

    def canaries(self) -> Sequence[tuple[GradeRequest, bool]]:
        """Responses that every worker grades when it starts, and whether they are correct."""
        return (
            (GradeRequest("so <answer> 42.0 </answer>", "42"), True),
            (GradeRequest("so <answer> 43 </answer>", "42"), False),
        )


def number(text: str) -> float | None:
    """The finite number that `text` is, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """What this distribution brings."""
    return [MyReward]
