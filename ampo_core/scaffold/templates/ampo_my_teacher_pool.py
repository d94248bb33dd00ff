"""Teacher pool `my_teacher_pool`: the answers of the data, without those that are long."""

from collections.abc import Sequence
from typing import Literal

from ampo_registry import ComponentSpec, Question, TeacherAnswer, TeacherPoolSpec, hookimpl
from pydantic import Field, PositiveInt


class MyTeacherPool(TeacherPoolSpec):
    """The answers that the training rows carry, of at most so many words, the shortest first."""

    type: Literal["my_teacher_pool"] = "my_teacher_pool"
    words: PositiveInt = Field(default=200, description="longest answer")

    def answers(self, question: Question) -> Sequence[TeacherAnswer]:
        """All answers for `question`, best first; may be empty. Same question, same answers."""
        known = [(len(answer.text.split()), answer) for answer in question.answers]
        return [answer for words, answer in sorted(known, key=lambda pair: pair[0]) if words <= self.words]


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """What this distribution brings."""
    return [MyTeacherPool]
