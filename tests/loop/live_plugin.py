"""A pool that asks a live teacher over HTTP, with the questions that need help and what the student made of them."""

import json
from collections.abc import Sequence
from typing import Any, Literal
from urllib.request import Request, urlopen

from ampo_registry import (
    BuildContext,
    ComponentSpec,
    LateTeacherPool,
    LateTeacherPoolSpec,
    Question,
    RolloutGroup,
    TeacherAnswer,
    hookimpl,
)
from pydantic import PositiveInt


class Live(LateTeacherPoolSpec):
    """Ask a server."""

    type: Literal["live"] = "live"
    url: str
    at_once: PositiveInt = 1  # it numbers its questions

    @property
    def names(self) -> tuple[str, ...]:
        return ("live", "blind")

    def build(self, context: BuildContext) -> LateTeacherPool:
        return Asking(self.url, context.rank)


class Asking:
    """Numbers its questions, and goes on with the numbers after a resume."""

    def __init__(self, url: str, rank: int) -> None:
        self.url, self.rank, self.asked = url, rank, 0

    def check_questions(self, questions: Sequence[Question]) -> None: ...

    def answers(self, question: Question, group: RolloutGroup) -> Sequence[TeacherAnswer]:
        self.asked += 1
        body = {
            "uid": question.uid,
            "rank": self.rank,
            "number": self.asked,
            "question": question.messages[-1].content,
            "wrong": [group.rollouts[i].text for i in group.wrong],
        }
        with urlopen(Request(self.url, json.dumps(body).encode()), timeout=30) as reply:
            return [TeacherAnswer(teacher, text) for teacher, text in json.load(reply)]

    def state_dict(self) -> dict[str, Any]:
        return {"asked": self.asked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.asked = state["asked"]


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    return [Live]
