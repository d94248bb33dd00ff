"""What a batch learns from: advantages from rewards, and which groups are trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from ampo_registry.protocols import Advantage

from ampo_core.config.objective import GroupFilterConfig
from ampo_core.loop.groups import AugmentedGroup, GuidedQuestion

RESAMPLED_BATCHES = 10
"""With `group_filter.resample` a step samples at most so many batches' questions, then trains on what it has."""
AT_ONCE = 2
"""… and at most so many of them in one call."""


def with_advantages(question: GuidedQuestion, advantage: Advantage) -> GuidedQuestion:
    """The question with the advantage of each sample (Eq. 1 and 6), float64: tensors begin here. Each of its groups is
    compared within itself."""
    return replace(question, groups=tuple(_compared(group, advantage) for group in question.groups))


def _compared(group: AugmentedGroup, advantage: Advantage) -> AugmentedGroup:
    """A sample without a verdict is no evidence: the others are compared among themselves, and its advantage is 0."""
    known = [i for i, sample in enumerate(group.samples) if sample.verified]
    samples = [group.samples[i] for i in known]
    advantages = [0.0] * len(group.samples)
    if samples:
        found = advantage.advantages(
            torch.tensor([sample.reward for sample in samples], dtype=torch.float64),
            torch.tensor([sample.grade.correct for sample in samples]),
            torch.tensor([sample.off_policy for sample in samples]),
        )
        for i, value in zip(known, found.tolist(), strict=True):
            advantages[i] = value
    return replace(group, advantages=tuple(advantages))


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
