"""How a late pool is asked: several questions at a time, in their order, and only for the teachers that it names."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from ampo_registry import Grade, GradeRequest, PluginError, Question, RolloutGroup, RunError, TeacherAnswer
from ampo_registry.testing import example_group, example_question

from ampo_core.config.tree import ModelConfig
from ampo_core.data.tokens import PromptTokenizer
from ampo_core.distributed.ranks import join_ranks
from ampo_core.loop.teachers import TeacherLibrary

ASKED = [example_group(question=example_question(number)) for number in range(8)]


class Waiting:
    """Answers once `together` questions wait for it; breaks at the question `broken`."""

    def __init__(self, together: int = 1, broken: int = -1) -> None:
        self.barrier, self.broken = threading.Barrier(together), broken
        self.threads: set[int] = set()
        self.asked = 0

    def check_questions(self, questions: Sequence[Question]) -> None: ...

    def answers(self, question: Question, group: RolloutGroup) -> list[TeacherAnswer]:
        self.threads.add(threading.get_ident())
        self.asked += 1
        self.barrier.wait(timeout=10)
        if self.broken >= 0 and question == ASKED[self.broken].question:
            raise PluginError("the server is asleep")
        return [TeacherAnswer("live", f"{question.uid} <answer>42</answer>")]


class Slow(Waiting):
    """Takes its time for what comes after the question that breaks."""

    def answers(self, question: Question, group: RolloutGroup) -> list[TeacherAnswer]:
        if question not in [group.question for group in ASKED[: self.broken + 1]]:
            time.sleep(0.3)
        return super().answers(question, group)


class Agreeing:
    """Finds everything right."""

    def grade(self, requests: Sequence[GradeRequest], tries: int = 1) -> list[Grade]:
        return [Grade(1.0, True, True) for _ in requests]


@pytest.fixture
def library_of(golden_tokenizer: Any) -> Any:
    def build(pool: Waiting, at_once: int, names: tuple[str, ...] = ()) -> TeacherLibrary:
        tokenizer = PromptTokenizer(golden_tokenizer, ModelConfig(path="tests/golden/tokenizer"))
        grader: Any = Agreeing()
        return TeacherLibrary(pool, tokenizer, grader, join_ranks(), 200, late=names, at_once=at_once)

    return build


def test_questions_are_asked_side_by_side_and_answered_in_order(library_of: Any) -> None:
    pool = Waiting(together=4)
    found = library_of(pool, 4).late_candidates(ASKED, 1)
    assert len(pool.threads) == 4
    assert [guidance.text.split()[0] for [guidance] in found] == [group.question.uid for group in ASKED]
    assert library_of(pool, 4).late_candidates([], 1) == []


def test_a_pool_that_is_asked_one_after_the_other_is_asked_in_the_main_thread(library_of: Any) -> None:
    pool = Waiting()
    assert len(library_of(pool, 1).late_candidates(ASKED, 1)) == 8
    assert pool.threads == {threading.get_ident()}


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_question_that_fails_ends_the_asking(library_of: Any, at_once: int) -> None:
    pool = Slow(broken=1)
    with pytest.raises(RunError, match="step 3: the server is asleep"):
        library_of(pool, at_once).late_candidates(ASKED, 3)
    assert pool.asked < 8


def test_an_answer_of_a_teacher_that_the_pool_does_not_name_is_refused(library_of: Any) -> None:
    assert len(library_of(Waiting(), 1, ("blind", "live")).late_candidates(ASKED, 1)) == 8
    said = r"step 2: guidance\.teacher_pool: question .* has an answer of 'live'; its `names` are blind, dumb"
    with pytest.raises(RunError, match=said):
        library_of(Waiting(), 1, ("blind", "dumb")).late_candidates(ASKED, 2)
