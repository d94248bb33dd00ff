"""What a batch learns from: advantages from rewards, and which groups are trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from ampo_registry.protocols import Advantage

from ampo_core.config.tree import GroupFilterConfig
from ampo_core.loop.groups import AugmentedGroup

RESAMPLED_BATCHES = 10
"""With `group_filter.resample` a step samples at most so many batches' questions, then trains on what it has."""
AT_ONCE = 2
"""… and at most so many of them in one call."""


def with_advantages(group: AugmentedGroup, advantage: Advantage) -> AugmentedGroup:
    """The group with the advantage of each slot (Eq. 1 and 6), float64: tensors begin here.

    A slot without a verdict is no evidence: the others are compared among themselves, and its own advantage is 0.
    """
    known = [i for i, slot in enumerate(group.slots) if slot.verified]
    slots = [group.slots[i] for i in known]
    advantages = [0.0] * len(group.slots)
    if slots:
        found = advantage.advantages(
            torch.tensor([slot.reward for slot in slots], dtype=torch.float64),
            torch.tensor([slot.correct for slot in slots]),
            torch.tensor([slot.off_policy for slot in slots]),
        )
        for i, value in zip(known, found.tolist(), strict=True):
            advantages[i] = value
    return replace(group, advantages=tuple(advantages))


@dataclass(frozen=True, slots=True)
class GroupFilter:
    """Leaves out groups without signal; `batch` is the number of groups that a step is to train on.

    Without `config` these are only the groups in which nothing has a verdict. It comes after guidance, or it would drop
    what guidance has just rescued.
    """

    config: GroupFilterConfig | None
    batch: int

    def keep(self, groups: Sequence[AugmentedGroup]) -> list[int]:
        """Indices of the groups that are trained on, the first `batch` with signal."""
        return [i for i, group in enumerate(groups) if self._has_signal(group)][: self.batch]

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

    def _has_signal(self, group: AugmentedGroup) -> bool:
        outcomes = {slot.correct for slot in group.slots if slot.verified}
        drop = self.config.drop if self.config is not None else []
        return bool(outcomes) and outcomes not in [{"all_correct": {True}, "all_wrong": {False}}[kind] for kind in drop]
