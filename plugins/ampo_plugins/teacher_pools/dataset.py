"""Teacher pool `dataset`: the answers that the training rows themselves carry (the Multi-Guidance Pool)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ampo_registry import DataError, Question, TeacherAnswer, TeacherPoolSpec
from ampo_registry.text import nearest
from pydantic import Field


class Dataset(TeacherPoolSpec):
    """Read `target_lst` (several teachers) or, where that is null or left out, `target` (one) of a question's row.

    A row may hold no answer at all; an empty list is none. `teachers` keeps some: a composition of the pool.
    """

    type: Literal["dataset"] = "dataset"
    teachers: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="names of the teachers to use; null = all"
    )

    def answers(self, question: Question) -> Sequence[TeacherAnswer]:
        """The answers by quality_score, highest first, those without one last, otherwise in the row's order."""
        kept = [answer for answer in question.answers if self.teachers is None or answer.teacher in self.teachers]
        return sorted(kept, key=_by_quality)

    def check_questions(self, questions: Sequence[Question]) -> None:
        """Raises DataError for a teacher of `teachers` that no question has an answer of."""
        found = {answer.teacher for question in questions for answer in question.answers}
        for name in self.teachers or ():
            if name not in found:
                near = nearest(name, sorted(found))
                hint = f"; did you mean {near!r}?" if near else ""
                names = ", ".join(sorted(found)) or "none"
                raise DataError(f"teacher_pool.teachers: no question has an answer of {name!r}; found {names}{hint}")


def _by_quality(answer: TeacherAnswer) -> tuple[bool, float]:
    score = answer.quality_score
    return (score is None, 0.0 if score is None else -score)
