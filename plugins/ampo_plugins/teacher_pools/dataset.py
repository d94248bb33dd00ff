"""Teacher pool `dataset`: the answers that the training rows themselves carry (the Multi-Guidance Pool)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NoReturn

from ampo_registry import DataError, Question, TeacherAnswer, TeacherPoolSpec
from ampo_registry.text import nearest
from pydantic import Field

SINGLE_TEACHER = "teacher"
"""The teacher's name where a row's `target` does not tell it."""


class Dataset(TeacherPoolSpec):
    """Read `target_lst` (several teachers) or, where that is null or left out, `target` (one) of a question's row.

    A row may hold no answer at all; an empty list is none. `teachers` keeps some: a composition of the pool.
    """

    type: Literal["dataset"] = "dataset"
    teachers: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="names of the teachers to use; null = all"
    )

    def answers(self, question: Question) -> Sequence[TeacherAnswer]:
        """The answers by quality_score, highest first, those without one last, otherwise in the row's order.

        Raises DataError, which names the question's row, for an entry that is not of the data contract.
        """
        answers = self._entries(question)
        if self.teachers is not None:
            answers = [answer for answer in answers if answer.teacher in self.teachers]
        return sorted(answers, key=_by_quality)

    def check_questions(self, questions: Sequence[Question]) -> None:
        """Read every row once. Raises DataError for a malformed one and for a teacher of `teachers` that none has."""
        found = {answer.teacher for question in questions for answer in self._entries(question)}
        for name in self.teachers or ():
            if name not in found:
                near = nearest(name, sorted(found))
                hint = f"; did you mean {near!r}?" if near else ""
                names = ", ".join(sorted(found)) or "none"
                raise DataError(f"teacher_pool.teachers: no question has an answer of {name!r}; found {names}{hint}")

    def _entries(self, question: Question) -> list[TeacherAnswer]:
        row = question.extra
        if row.get("target_lst") is not None:
            return [_answer(entry, question, f"target_lst[{i}]") for i, entry in _list(question, "target_lst")]
        return [_answer(entry, question, f"target[{i}]", SINGLE_TEACHER) for i, entry in _list(question, "target")]


def _by_quality(answer: TeacherAnswer) -> tuple[bool, float]:
    score = answer.quality_score
    return (score is None, 0.0 if score is None else -score)


def _list(question: Question, field: str) -> list[tuple[int, object]]:
    value = question.extra.get(field)
    if value is None:
        return []
    if not isinstance(value, Sequence) or isinstance(value, str):
        _fail(question, field, "a list or null", value)
    return list(enumerate(value))


def _answer(entry: object, question: Question, field: str, unnamed: str | None = None) -> TeacherAnswer:
    if not isinstance(entry, Mapping):
        _fail(question, field, "{role, content, source, quality_score}", entry)
    role, text, teacher = entry.get("role"), entry.get("content"), entry.get("source") or unnamed
    if role != "assistant":
        _fail(question, f"{field}.role", "assistant", role)
    if not isinstance(text, str):
        _fail(question, f"{field}.content", "text", text)
    if not isinstance(teacher, str):
        _fail(question, f"{field}.source", "the name of a teacher", teacher)
    score = entry.get("quality_score")
    return TeacherAnswer(
        teacher=teacher,
        text=text,
        logprobs=_logprobs(entry.get("logprobs"), question, f"{field}.logprobs"),
        quality_score=None if score is None else _score(score, question, f"{field}.quality_score"),
    )


def _score(value: object, question: Question, field: str) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        _fail(question, field, "a number or null", value)
    # A number column writes a missing value as NaN, which has no place in an order.
    return None if math.isnan(value) else float(value)


def _logprobs(value: object, question: Question, field: str) -> tuple[float, ...] | None:
    if value is None:
        return None
    if not isinstance(value, Sequence) or isinstance(value, str):
        _fail(question, field, "a list of numbers or null", value)
    for item in value:
        if not isinstance(item, int | float) or isinstance(item, bool) or not math.isfinite(item):
            _fail(question, field, "finite numbers", item)
    return tuple(map(float, value))


def _fail(question: Question, field: str, wanted: str, found: object) -> NoReturn:
    info = question.extra.get("extra_info")
    index = f", extra_info.index {info['index']}" if isinstance(info, Mapping) and "index" in info else ""
    shown = "nothing" if found is None else repr(found)
    raise DataError(
        f"question {question.uid[:12]} (data_source {question.source}{index}): "
        f"{field} must be {wanted}; found {shown[:120]}"
    )
