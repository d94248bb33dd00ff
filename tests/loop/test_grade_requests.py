"""A reward sees all of a question wherever its responses come from: training, hooks, teachers, evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from ampo_plugins.rewards.math_verify import MathVerify
from ampo_plugins.teacher_pools.dataset import Dataset
from ampo_registry import Grade, GradeRequest, Message, Question, SamplingOptions, TeacherAnswer
from ampo_registry.testing import example_rollout

from ampo_core.config.tree import ModelConfig
from ampo_core.data.tokens import PromptTokenizer
from ampo_core.distributed.ranks import join_ranks
from ampo_core.evaluation.evaluate import grade_responses
from ampo_core.evaluation.results import Answer, SetResult
from ampo_core.loop.judges import Judges
from ampo_core.loop.sampling import grade_requests
from ampo_core.loop.services import Services
from ampo_core.loop.teachers import TeacherLibrary

ANSWERS = (TeacherAnswer("A", "so <answer>7</answer>"),)
ROW = {"extra_info": {"numbers": [3, 4]}, "target_lst": [{"content": "so"}]}
QUESTION = Question("q", (Message("user", "?"),), (1, 2), "7", "src", ROW, ANSWERS)
NO_JUDGES = Judges(None, {}, declared=(), temperature=1.0, most=99)  # type: ignore[arg-type]
LONG = replace(example_rollout(), finish_reason="length")


class Graders:
    """Keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[GradeRequest] = []

    def grade(self, requests: Sequence[GradeRequest], tries: int = 1) -> list[Grade]:
        self.asked += requests
        return [Grade(1.0, True, True) for _ in requests]


def hook(graders: Graders, tokenizer: PromptTokenizer) -> None:
    options = SamplingOptions(1.0, 1.0, 64, ())
    sampler: Any = SimpleNamespace(ranks=join_ranks(), grader=graders, options=options, reward=MathVerify())
    Services(sampler, tokenizer, NO_JUDGES, steps=1, max_tokens=100).grade([(QUESTION, LONG)])


def teacher(graders: Graders, tokenizer: PromptTokenizer) -> None:
    TeacherLibrary(Dataset(), tokenizer, graders, join_ranks(), 64).candidates([QUESTION])  # type: ignore[arg-type]


def training(graders: Graders, tokenizer: PromptTokenizer) -> None:
    graders.grade(grade_requests([QUESTION], [[LONG]]))


def evaluation(graders: Graders, tokenizer: PromptTokenizer) -> None:
    grade_responses(graders, [QUESTION], [[(LONG.text, LONG.finish_reason)]])  # type: ignore[arg-type]


@pytest.mark.parametrize("caller", [hook, teacher, training, evaluation], ids=lambda caller: caller.__name__)
def test_a_reward_sees_the_whole_question(
    caller: Callable[[Graders, PromptTokenizer], None], golden_tokenizer: Any
) -> None:
    graders = Graders()
    caller(graders, PromptTokenizer(golden_tokenizer, ModelConfig(path="tests/golden/tokenizer")))
    text, end = (ANSWERS[0].text, "stop") if caller is teacher else (LONG.text, "length")
    row = {"extra_info": {"numbers": [3, 4]}}
    assert graders.asked == [GradeRequest(text, "7", "src", "q", QUESTION.messages, row, end)]  # type: ignore[arg-type]


def test_an_evaluation_set_has_the_rewards_own_numbers() -> None:
    grades = [Grade(1.0, True, True, numbers={"mine/a": float(i)}) for i in range(4)]
    answers = tuple(tuple(Answer("x", 2, "stop", -1.0, grade) for grade in grades[i : i + 2]) for i in (0, 2))
    result = SetResult("easy", (QUESTION, QUESTION), answers, ())
    assert result.metrics()["mine/a"] == 1.5
    assert [record["numbers"] for record in result.predictions(lambda _: None)] == [
        {"mine/a": float(i)} for i in range(4)
    ]
