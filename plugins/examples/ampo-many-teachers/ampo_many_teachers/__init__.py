"""Credit `many_teachers`: on-policy distillation from several judges, weighed by how well the student follows each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from ampo_registry import (
    ON_POLICY,
    ComponentSpec,
    CreditGroup,
    CreditSpec,
    JudgeRequest,
    LogProbs,
    Sample,
    StepContext,
    hookimpl,
)
from pydantic import Field

if TYPE_CHECKING:
    import torch


class ManyTeachers(CreditSpec):
    """Distils from several judges, in each group most from those that the student follows: A_t is the mean of
    log π_j − log π_old, weighed by softmax(−KL_j / temperature), KL_j being its negative mean over the group."""

    type: Literal["many_teachers"] = "many_teachers"
    teachers: list[str] = Field(min_length=1, description="names of judges")
    temperature: float = Field(default=0.1, gt=0.0, description="nats a token; towards 0 the nearest judge alone")

    @property
    def judges(self) -> frozenset[str]:
        return frozenset(self.teachers)

    def credit(self, groups: Sequence[CreditGroup], context: StepContext) -> list[list[float | torch.Tensor]]:
        import torch

        asked = [sample for group in groups for sample in group.samples if _own_tokens(sample)]
        requests = [JudgeRequest(sample.prompt_token_ids, sample.token_ids) for sample in asked]
        judged = zip(*(context.judge(name).logprobs(requests) for name in self.teachers), strict=True)
        given = zip(context.old_logprobs(asked), judged, strict=True)
        credits: list[list[float | torch.Tensor]] = []
        for group in groups:
            ratios = [_ratios(sample, *next(given)) if _own_tokens(sample) else None for sample in group.samples]
            tokens = sum(map(_own_tokens, group.samples))
            zeros = torch.zeros(len(self.teachers), dtype=torch.float64)
            total = sum((ratio.sum(1) for ratio in ratios if ratio is not None), start=zeros)
            weights = torch.softmax(total / max(tokens, 1) / self.temperature, 0)
            for name, weight in zip(self.teachers, weights, strict=True):
                if tokens:
                    context.log(f"many_teachers/weight/{name}", float(weight))
            credits.append([0.0 if ratio is None else weights @ ratio for ratio in ratios])
        return credits


def _own_tokens(sample: Sample) -> int:
    """Tokens that the student wrote; 0 where there is no verdict: such a sample is not trained."""
    return sum(end - start for start, end in sample.spans(ON_POLICY)) if sample.verified else 0


def _ratios(sample: Sample, old: LogProbs, judged: Sequence[LogProbs]) -> torch.Tensor:
    """log π_j − log π_old of each judge, [judges, response tokens] float64; 0 where the student wrote nothing."""
    import torch

    found = torch.tensor([list(values) for values in judged], dtype=torch.float64)
    ratios = torch.zeros_like(found)
    for start, end in sample.spans(ON_POLICY):
        ratios[:, start:end] = found[:, start:end] - torch.tensor(old[start:end], dtype=torch.float64)
    return ratios


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """What this distribution brings."""
    return [ManyTeachers]
