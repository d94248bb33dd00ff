"""Conformance of teacher pools."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import cast

from ampo_registry.pools import LateTeacherPoolSpec
from ampo_registry.protocols import BuildContext, LateTeacherPool, TeacherPool
from ampo_registry.specs import TeacherPoolSpec
from ampo_registry.testing.common import Rules, check_memory, check_spec_class, twice
from ampo_registry.testing.examples import example_group, example_question
from ampo_registry.types import Question, TeacherAnswer


def example_pool_questions() -> list[Question]:
    """Questions with several teacher answers, one, an empty list, and null, in their rows too."""
    answers = [
        TeacherAnswer(f"teacher-{i}", f"Reasoning {i}. <answer>42</answer>", quality_score=score)
        for i, score in enumerate((1.0, 0.5, None))
    ]
    rows = [
        {"role": "assistant", "content": a.text, "source": a.teacher, "quality_score": a.quality_score} for a in answers
    ]
    return [
        example_question(i, extra={"target_lst": None if n is None else rows[:n]}, answers=answers[: n or 0])
        for i, n in enumerate((3, 1, 0, None))
    ]


def check_teacher_pool(
    spec: TeacherPoolSpec, questions: Sequence[Question] | None = None, context: BuildContext | None = None
) -> None:
    """A pool gives the same answers for the same question, may have none, and leaves the question as it is. A late one
    gives the same where two fresh builds are asked the same: one that asks a live teacher is checked with a fake one.

    `questions` are what it is asked; give your own if it needs more than the examples hold. `context` is what it is
    built in.
    """
    check_spec_class(spec)
    rule = Rules(spec)
    questions = list(questions) if questions is not None else example_pool_questions()
    pool = spec.build(context or BuildContext())
    pool.check_questions(questions)
    for question in questions:
        kept = copy.deepcopy((question, dict(question.extra)))
        first, second = twice(_ask, spec, pool, question)
        rule(isinstance(cast(object, first), list | tuple), "answers() must return a list or tuple", type(first))
        early = not isinstance(spec, LateTeacherPoolSpec)
        rule(not early or list(first) == list(second), "the same question must get the same answers")
        rule((question, dict(question.extra)) == kept, "the question must be left as it is")
        for answer in first:
            _check_answer(rule, answer)
            named = not isinstance(spec, LateTeacherPoolSpec) or not spec.names or answer.teacher in spec.names
            rule(named, "names must hold every teacher that answers", answer.teacher)

    def act(pool: TeacherPool | LateTeacherPool, number: int) -> object:
        return [list(_ask(spec, pool, question)) for question in questions]

    check_memory(rule, spec, act, context)


def _ask(spec: TeacherPoolSpec, pool: TeacherPool | LateTeacherPool, question: Question) -> Sequence[TeacherAnswer]:
    if isinstance(spec, LateTeacherPoolSpec):
        return cast(LateTeacherPool, pool).answers(question, example_group(question=question))
    return cast(TeacherPool, pool).answers(question)


def _check_answer(rule: Rules, answer: object) -> None:
    rule(isinstance(answer, TeacherAnswer), "every answer must be a TeacherAnswer", answer)
    assert isinstance(answer, TeacherAnswer)
    rule(bool(answer.teacher), "every answer must name its teacher", answer)
    rule(isinstance(cast(object, answer.text), str), "every answer must have a text", answer)
    logprobs = answer.logprobs
    rule(logprobs is None or all(map(math.isfinite, logprobs)), "log-probs of an answer must be finite", logprobs)
