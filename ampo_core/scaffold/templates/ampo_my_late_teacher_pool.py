"""Late teacher pool `my_late_teacher_pool`: a teacher that is asked in the step, about what the student got wrong."""

from collections.abc import Sequence
from typing import Literal

from ampo_registry import ComponentSpec, LateTeacherPoolSpec, Question, RolloutGroup, TeacherAnswer, hookimpl


class MyLateTeacherPool(LateTeacherPoolSpec):
    """Ask only where every response was wrong. This teacher knows the key; put yours in its place."""

    type: Literal["my_late_teacher_pool"] = "my_late_teacher_pool"

    @property
    def names(self) -> tuple[str, ...]:
        """The teachers, as the run's manifest lists them."""
        return ("key",)

    def answers(self, question: Question, group: RolloutGroup) -> Sequence[TeacherAnswer]:  # type: ignore[override]
        """What the teacher answers to `question`, given what the student made of it; may be empty."""
        if group.correct:
            return []
        return [TeacherAnswer("key", f"The answer is <answer>{question.answer}</answer>")]


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """What this distribution brings."""
    return [MyLateTeacherPool]
