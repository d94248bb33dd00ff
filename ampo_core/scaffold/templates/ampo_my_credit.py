"""Advantage `my_credit` in the free form: the later a token, the more of the reward is its own."""

from collections.abc import Sequence
from statistics import fmean
from typing import Literal

from ampo_registry import ComponentSpec, CreditGroup, CreditSpec, Sample, StepContext, hookimpl
from pydantic import Field


class MyCredit(CreditSpec):
    """The reward minus its group's mean, discounted for each token from the end of the response."""

    type: Literal["my_credit"] = "my_credit"
    discount: float = Field(default=0.99, gt=0.0, le=1.0, description="γ: token t of T gets γ^(T−t) of it")

    def credit(self, groups: Sequence[CreditGroup], context: StepContext) -> list[list[list[float]]]:
        """For each group and each of its samples a number for each token; a number for all of them will do, too."""
        return [self._of_group(group.samples) for group in groups]

    def _of_group(self, samples: Sequence[Sample]) -> list[list[float]]:
        mean = (
            fmean(sample.reward for sample in samples if sample.verified) if any(s.verified for s in samples) else 0.0
        )
        return [
            [(sample.reward - mean) * self.discount**left for left in reversed(range(len(sample.token_ids)))]
            for sample in samples
        ]


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """What this distribution brings."""
    return [MyCredit]
