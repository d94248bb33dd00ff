"""A question after guidance: groups of samples that are compared among themselves, and samples that are not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from ampo_registry.samples import Sample
from ampo_registry.types import Guidance, Question, RolloutGroup, Selection


@dataclass(frozen=True, slots=True)
class AugmentedGroup:
    """Samples whose rewards are compared among themselves, and once computed the advantage of each."""

    samples: tuple[Sample, ...]
    advantages: tuple[float | torch.Tensor, ...] = ()
    """A number for a sample, or a float64 tensor [response tokens]."""

    @property
    def mean_advantages(self) -> tuple[float, ...]:
        """A number for each sample: where each token has one, their mean."""
        return tuple(float(a.mean()) if isinstance(a, torch.Tensor) else a for a in self.advantages)

    @property
    def has_signal(self) -> bool:
        """True if some advantage is not 0."""
        return any(bool(a.any()) if isinstance(a, torch.Tensor) else a != 0.0 for a in self.advantages)


@dataclass(frozen=True, slots=True)
class GuidedQuestion:
    """What a question is trained with: usually one group and nothing else.

    Auxiliary terms alone see the intervention's `extra` samples, and the selected `answers` of terms that train one of
    every question. `selections` were chosen from `candidates`; both are empty where the selector was not asked.
    """

    question: Question
    groups: tuple[AugmentedGroup, ...]
    extra: tuple[Sample, ...] = ()
    answers: tuple[Sample, ...] = ()
    triggered: bool = False
    candidates: tuple[Guidance, ...] = ()
    selections: tuple[Selection, ...] = ()

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All samples of its groups."""
        return tuple(sample for group in self.groups for sample in group.samples)


@dataclass(frozen=True, slots=True)
class GuidedBatch:
    """The questions of a batch, in order, and `extra` samples of other questions."""

    questions: tuple[GuidedQuestion, ...]
    extra: tuple[Sample, ...] = ()

    def beside(self, terms: Collection[str]) -> list[Sample]:
        """The samples of no group that one of `terms` trains."""
        own = (sample for question in self.questions for sample in (*question.extra, *question.answers))
        return [s for s in (*own, *self.extra) if any(term in terms for term, _ in s.segments)]


def unguided(group: RolloutGroup) -> GuidedQuestion:
    """The group as it was sampled."""
    pairs = zip(group.rollouts, group.grades, strict=True)
    samples = tuple(Sample.sampled(group.question, rollout, grade) for rollout, grade in pairs)
    return GuidedQuestion(group.question, (AugmentedGroup(samples),))
