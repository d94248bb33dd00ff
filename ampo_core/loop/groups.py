"""A group after guidance: rollouts and the teacher answers that took the place of some."""

from __future__ import annotations

from dataclasses import dataclass

from ampo_registry.tokens import TokenIds
from ampo_registry.types import Question, Rollout, RolloutGroup, Selection


@dataclass(frozen=True, slots=True)
class Slot:
    """One member of an augmented group: a rollout, or the teacher answer that replaced it.

    `verified` is False for a rollout without a verdict (the verifier timed out or failed), which is no evidence: it
    may be replaced, and is otherwise left out of advantages and loss.
    """

    token_ids: TokenIds
    text: str
    reward: float
    correct: bool
    rollout: Rollout | None = None
    selection: Selection | None = None
    verified: bool = True

    @property
    def off_policy(self) -> bool:
        """True for a teacher's answer."""
        return self.selection is not None

    @property
    def truncated(self) -> bool:
        """True for a rollout that hit the response limit."""
        return self.rollout is not None and self.rollout.finish_reason == "length"


@dataclass(frozen=True, slots=True)
class AugmentedGroup:
    """A question with its G slots after replacement, and once computed the advantage of each slot."""

    question: Question
    slots: tuple[Slot, ...]
    triggered: bool
    advantages: tuple[float, ...] = ()


def unguided(group: RolloutGroup) -> AugmentedGroup:
    """The group as it was sampled."""
    slots = (
        Slot(rollout.token_ids, rollout.text, grade.reward, grade.correct, rollout, verified=grade.status == "ok")
        for rollout, grade in zip(group.rollouts, group.grades, strict=True)
    )
    return AugmentedGroup(group.question, tuple(slots), triggered=False)
