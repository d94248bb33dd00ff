"""Spec base of teacher pools that are asked in the step."""

from __future__ import annotations

from collections.abc import Sequence

from ampo_registry.protocols import BuildContext, LateTeacherPool
from ampo_registry.specs import TeacherPoolSpec
from ampo_registry.types import Question, RolloutGroup, TeacherAnswer


class LateTeacherPoolSpec(TeacherPoolSpec):
    """Gives teachers' answers in the step, and only to questions that need them: a live teacher.

    A question is asked on one rank. Its answers are graded as others are, and nothing of them is kept: when the
    question needs help again, it is asked again.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """The teachers that may answer, for the run's manifest."""
        return ()

    def build(self, context: BuildContext) -> LateTeacherPool:
        return self

    def answers(self, question: Question, group: RolloutGroup) -> Sequence[TeacherAnswer]:  # type: ignore[override]
        """Answers to `question`, best first; may be empty. `group` holds the student's rollouts and their grades."""
        self._missing("answers")
