"""Samples: what is trained, in segments; and what an intervention makes of a group that needs guidance.

A sample is a prompt and a response. Its response is cut into segments, each of which is trained by a term of the
objective, or is context and is not trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar, cast

from ampo_registry.errors import PluginError
from ampo_registry.tokens import LogProbs, TokenIds
from ampo_registry.types import Grade, Guidance, Question, Rollout, RolloutGroup, Selection

T = TypeVar("T")
Segment = tuple[str | None, int]
"""The term that trains it (None: context, not trained), and its number of tokens."""
ON_POLICY, OFF_POLICY = "on_policy", "off_policy"
"""The terms that every objective has: the student's tokens, the teachers'. Further ones are declared in
`objective.auxiliary`."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A response and the prompt that it is trained with, which may be another one than it was written under.

    `segments` add up to `token_ids` [n]. `logprobs` [n] are those of whoever wrote each token, given this prompt, in
    nats: the sampler's, or a teacher's recorded ones; None where they are not known. `rollout` and `selection` say
    where the response came from: a rollout, a teacher's answer, or both.
    """

    question: Question
    prompt_token_ids: TokenIds
    token_ids: TokenIds
    segments: tuple[Segment, ...]
    text: str
    reward: float
    grade: Grade
    logprobs: LogProbs | None = None
    rollout: Rollout | None = None
    selection: Selection | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt_token_ids", TokenIds.of(self.prompt_token_ids))
        object.__setattr__(self, "token_ids", TokenIds.of(self.token_ids))
        object.__setattr__(self, "segments", tuple(self.segments))
        if self.logprobs is not None:
            object.__setattr__(self, "logprobs", LogProbs.of(self.logprobs))
            if len(self.logprobs) != len(self.token_ids):
                raise PluginError(f"a sample has {len(self.logprobs)} log-probs for {len(self.token_ids)} tokens")
        lengths = [length for _, length in self.segments]
        if sum(lengths) != len(self.token_ids) or min(lengths, default=0) < 0:
            raise PluginError(f"a sample's segments {self.segments} do not add up to its {len(self.token_ids)} tokens")

    @classmethod
    def sampled(cls, question: Question, rollout: Rollout, grade: Grade) -> Sample:
        """A plain rollout: one on-policy segment. Log-probs that are NaN are not known."""
        return cls(
            question=question,
            prompt_token_ids=question.prompt_token_ids,
            token_ids=rollout.token_ids,
            segments=((ON_POLICY, len(rollout.token_ids)),),
            text=rollout.text,
            reward=grade.reward,
            grade=grade,
            logprobs=None if any(map(math.isnan, rollout.logprobs[:1])) else rollout.logprobs,
            rollout=rollout,
        )

    @classmethod
    def answer(
        cls, question: Question, selection: Selection, *, reward: float | None = None, term: str = OFF_POLICY
    ) -> Sample:
        """A teacher's whole answer as one segment of `term`; without `reward` it earns what its grade says.

        Recorded log-probs that are not one a token are left out: where a loss reads them, they were checked before.
        """
        guidance = selection.guidance
        fitting = guidance.logprobs is not None and len(guidance.logprobs) == len(guidance.token_ids)
        return cls(
            question=question,
            prompt_token_ids=question.prompt_token_ids,
            token_ids=guidance.token_ids,
            segments=((term, len(guidance.token_ids)),),
            text=guidance.text,
            reward=guidance.grade.reward if reward is None else reward,
            grade=guidance.grade,
            logprobs=guidance.logprobs if fitting else None,
            selection=selection,
        )

    def spans(self, term: str) -> tuple[tuple[int, int], ...]:
        """Start and end within the response of each segment of `term` that holds a token."""
        found: list[tuple[int, int]] = []
        start = 0
        for name, length in self.segments:
            if name == term and length:
                found.append((start, start + length))
            start += length
        return tuple(found)

    @property
    def off_policy(self) -> bool:
        """True if a segment of it is trained as a teacher's."""
        return any(term == OFF_POLICY for term, _ in self.segments)

    @property
    def verified(self) -> bool:
        """False where the verifier gave no verdict: then the sample is no evidence, and is not trained."""
        return self.grade.status == "ok"

    @property
    def truncated(self) -> bool:
        """True for a rollout that hit the response limit."""
        return self.rollout is not None and self.rollout.finish_reason == "length"


@dataclass(frozen=True, slots=True)
class InterventionRequest:
    """A group that the trigger fired for: what was sampled, and the teacher answers `selections` that the selector
    chose from `candidates`, best first.

    `position` is its place in the step's batch. `rng` is seeded from (run seed, step, position). A teacher's whole
    answer earns `teacher_reward`, or where that is None what its grade says.
    """

    group: RolloutGroup
    selections: tuple[Selection, ...]
    candidates: tuple[Guidance, ...]
    position: int
    rng: Random = field(compare=False)
    teacher_reward: float | None = None

    @property
    def question(self) -> Question:
        """The group's question."""
        return self.group.question

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The group as it was sampled."""
        pairs = zip(self.group.rollouts, self.group.grades, strict=True)
        return tuple(Sample.sampled(self.question, rollout, grade) for rollout, grade in pairs)

    def answer(self, selection: Selection, term: str = OFF_POLICY) -> Sample:
        """A selected answer as a sample of `term`, with the reward that the config gives it."""
        return Sample.answer(self.question, selection, reward=self.teacher_reward, term=term)

    def with_wrong_replaced(self, fresh: Sequence[Sample]) -> tuple[Sample, ...]:
        """The group with each of `fresh` in the place of one wrong rollout, drawn at random (Eq. 4). Its size stays.

        Draws from `rng`: a second call draws other places. Raises PluginError for more samples than wrong rollouts.
        """
        if len(fresh) > len(self.group.wrong):
            raise PluginError(f"with_wrong_replaced: {len(fresh)} samples for {len(self.group.wrong)} wrong rollouts")
        samples = list(self.samples)
        for index, sample in zip(self.rng.sample(self.group.wrong, len(fresh)), fresh, strict=True):
            samples[index] = sample
        return tuple(samples)


@dataclass(frozen=True, slots=True)
class Guided:
    """What became of one request: groups of samples, each normalised alone and of any size, and `extra` samples for
    auxiliary terms only, which no advantage sees.

    Raises PluginError for what is no such thing.
    """

    groups: tuple[tuple[Sample, ...], ...]
    extra: tuple[Sample, ...] = ()

    def __post_init__(self) -> None:
        groups = _sequence(self.groups, "Guided: `groups` are groups of samples, none at all is ()")
        wanted = "Guided: each of `groups` is a sequence of samples, a single one is Guided((samples,))"
        object.__setattr__(self, "groups", tuple(_all(Sample, group, wanted) for group in groups))
        object.__setattr__(self, "extra", _all(Sample, self.extra, "Guided: `extra` is a sequence of samples"))


def _sequence(value: object, wanted: str) -> Sequence[object]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return cast("Sequence[object]", value)
    raise PluginError(f"{wanted}; found {type(value).__name__}")


def _all(kind: type[T], value: object, wanted: str) -> tuple[T, ...]:
    for item in _sequence(value, wanted):
        if not isinstance(item, kind):
            raise PluginError(f"{wanted}; found {type(item).__name__} in it")
    return tuple(cast("Sequence[T]", value))


@dataclass(frozen=True, slots=True)
class Intervened:
    """What an intervention did in a step: one `Guided` for each request, in order, and `extra` samples of the step as a
    whole, of earlier questions for example, for auxiliary terms only.

    Raises PluginError for what is no such thing.
    """

    guided: tuple[Guided, ...]
    extra: tuple[Sample, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "guided", _all(Guided, self.guided, "Intervened: `guided` is a Guided for each request")
        )
        object.__setattr__(self, "extra", _all(Sample, self.extra, "Intervened: `extra` is a sequence of samples"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a question in a step, whether it was guided or not: what a selector may learn from.

    `grades` are those of what was sampled. `selections` are what the selector chose from `candidates`; both are empty
    where it was not asked. `samples` and `advantages`, one each (the mean of one that has a number a token), are those
    of all groups that it was trained with; it was not `trained` where the group filter left it out. `position` is its
    place among the questions of `step`.
    """

    question: Question
    grades: tuple[Grade, ...]
    candidates: tuple[Guidance, ...]
    selections: tuple[Selection, ...]
    samples: tuple[Sample, ...]
    advantages: tuple[float, ...]
    trained: bool
    step: int
    position: int
