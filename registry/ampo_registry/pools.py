"""Spec base of teacher pools that are asked in the step."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, PositiveInt

from ampo_registry.protocols import BuildContext, LateTeacherPool
from ampo_registry.specs import TeacherPoolSpec
from ampo_registry.types import Question, RolloutGroup, TeacherAnswer


class LateTeacherPoolSpec(TeacherPoolSpec):
    """Gives teachers' answers in the step, and only to questions that need them: a live teacher.

    A question is asked on one rank. Its answers are graded as others are, and nothing of them is kept: when the
    question needs help again, it is asked again. `answers` is called in several threads unless `at_once` is 1: then in
    the main one.
    """

    at_once: PositiveInt = Field(default=8, description="questions that a rank asks at the same time, in threads")

    @property
    def names(self) -> tuple[str, ...]:
        """The teachers that may answer, for the run's manifest; an answer of another one is then an error."""
        return ()

    def build(self, context: BuildContext) -> LateTeacherPool:
        return self

    def answers(self, question: Question, group: RolloutGroup) -> Sequence[TeacherAnswer]:  # type: ignore[override]
        """Answers to `question`, best first; may be empty. `group` holds the student's rollouts and their grades."""
        self._missing("answers")
