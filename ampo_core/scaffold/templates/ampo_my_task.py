"""Task `my_task`: how often does a letter occur?"""

from random import Random
from typing import Literal

from ampo_registry import (
    ComponentSpec,
    Message,
    TaskData,
    TaskQuestion,
    TaskSpec,
    TeacherAnswer,
    hookimpl,
)
from pydantic import Field, PositiveInt


class MyTask(TaskSpec):
    """Count the letter a in a word of made-up syllables; one teacher answers at once, one spells the word out."""

    type: Literal["my_task"] = "my_task"
    questions: PositiveInt = Field(default=200, description="training questions, at most")
    heldout: PositiveInt = Field(default=20, description="questions of the held-out set `counting`, at most")
    syllables: PositiveInt = Field(default=4, description="length of a word")

    def make(self, seed: int) -> TaskData:
        """All data; the same for the same seed."""
        luck = Random(seed)
        drawn = ("".join(luck.choices(("ba", "na", "to", "ki"), k=self.syllables)) for _ in range(10 * self.questions))
        words = list(dict.fromkeys(drawn))
        held = min(self.heldout, len(words) // 2)
        asked = [self._question(word) for word in words[: held + self.questions]]
        train = tuple(asked[held:])
        spelt = tuple((*q.messages, Message("assistant", q.teacher_answers[1].text)) for q in train)
        return TaskData(train=train, heldout={"counting": tuple(asked[:held])}, sft=spelt)

    def _question(self, word: str) -> TaskQuestion:
        answer = str(word.count("a"))
        counted = " ".join(f"{letter}{word[: i + 1].count('a')}" for i, letter in enumerate(word))
        texts = {"short": f"<answer>{answer}</answer>", "spelling": f"{counted} <answer>{answer}</answer>"}
        return TaskQuestion(
            messages=(Message("user", f"How often is the letter a in {word}? Put the number within <answer> tags."),),
            answer=answer,
            source="my_task",
            teacher_answers=tuple(TeacherAnswer(teacher, text) for teacher, text in texts.items()),
        )


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """What this distribution brings."""
    return [MyTask]
