"""What a batch learns from: advantages from rewards, and which groups are trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from ampo_registry.credit import Credit, CreditGroup, compared, credit_of, is_short, numbers_of
from ampo_registry.protocols import Advantage
from ampo_registry.samples import Sample
from ampo_registry.step import StepContext

from ampo_core.checked.call import about
from ampo_core.config.objective import GroupFilterConfig
from ampo_core.distributed.ranks import Ranks
from ampo_core.loop.agreement import advantages_of, agree
from ampo_core.loop.groups import AugmentedGroup, GuidedQuestion

RESAMPLED_BATCHES = 10
"""With `group_filter.resample` a step samples at most so many batches' questions, then trains on what it has."""
AT_ONCE = 2
"""… and at most so many of them in one call."""


def with_advantages(
    questions: Sequence[GuidedQuestion],
    advantage: Credit | Advantage,
    context: StepContext,
    ranks: Ranks | None = None,
) -> list[GuidedQuestion]:
    """The questions with the advantage of each sample (Eq. 1 and 6), float64: tensors begin here. In the short form
    each group is compared within itself; the free one sees all of them."""
    groups = [CreditGroup(q.question, group.samples, q.selections) for q in questions for group in q.groups]
    said = _said(advantage, groups, context)
    found = (
        tuple(_number(value, sample) for value, sample in zip(values, group.samples, strict=True))
        for values, group in zip(said, groups, strict=True)
    )
    credited = [
        replace(question, groups=tuple(replace(group, advantages=next(found)) for group in question.groups))
        for question in questions
    ]
    agree(ranks, "objective.advantage", "what it says of samples", lambda: advantages_of(credited), context.step)
    return credited


def _said(
    advantage: Credit | Advantage, groups: Sequence[CreditGroup], context: StepContext
) -> Sequence[Sequence[float | Sequence[float] | torch.Tensor]]:
    """What `advantage` says of `groups`; a fault of the short form names the question."""
    if not is_short(advantage):
        return credit_of(advantage, groups, context)
    said = []
    for group in groups:
        with about(group.question.uid):
            said.append(compared(advantage, group))
    return said


def _number(value: float | Sequence[float] | torch.Tensor, sample: Sample) -> float | torch.Tensor:
    """`value` as a number or a float64 tensor [response tokens]; 0 for a sample without a verdict."""
    if not sample.verified or isinstance(value, int | float):
        return float(value) if sample.verified else 0.0  # type: ignore[arg-type]
    made = numbers_of(value).clone()  # the credit may write into its own again
    return float(made) if made.ndim == 0 else made


@dataclass(frozen=True, slots=True)
class GroupFilter:
    """Leaves out groups without signal; `batch` is the number of questions that a step is to train on.

    Without `config` these are only the groups in which nothing has a verdict. It comes after guidance, or it would drop
    what guidance has just rescued.
    """

    config: GroupFilterConfig | None
    batch: int

    def keep(self, questions: Sequence[GuidedQuestion]) -> list[int]:
        """Indices of the questions that are trained on, the first `batch` with signal."""
        return [i for i, question in enumerate(questions) if self._has_signal(question)][: self.batch]

    def trained(self, question: GuidedQuestion) -> GuidedQuestion:
        """`question` with those of its groups that have a signal."""
        return replace(question, groups=tuple(group for group in question.groups if self._tells(group)))

    def wants(self, sampled: int, kept: int) -> int:
        """How many questions to sample next, after `sampled` of them gave `kept` groups; 0 ends the step's sampling.

        Without resampling that is one batch. With it, as many as the share that was kept so far asks for.
        """
        if sampled == 0:
            return self.batch
        if self.config is None or not self.config.resample:
            return 0
        missing = math.ceil((self.batch - kept) * sampled / max(kept, 1))
        return min(missing, AT_ONCE * self.batch, RESAMPLED_BATCHES * self.batch - sampled)

    def used(self, kept: Sequence[int], sampled: int) -> int:
        """How many of the `sampled` questions a step has used up. Those after the last one that a full batch needs
        are sampled again in the next step: no question goes by unseen."""
        return kept[-1] + 1 if len(kept) == self.batch else sampled

    def _has_signal(self, question: GuidedQuestion) -> bool:
        return bool(question.extra) or any(self._tells(group) for group in question.groups)

    def _tells(self, group: AugmentedGroup) -> bool:
        outcomes = {sample.grade.correct for sample in group.samples if sample.verified}
        drop = self.config.drop if self.config is not None else []
        return bool(outcomes) and outcomes not in [{"all_correct": {True}, "all_wrong": {False}}[kind] for kind in drop]
