"""The pool that hands on the answers of the training rows."""

from __future__ import annotations

import pytest
from ampo_plugins.teacher_pools.dataset import Dataset
from ampo_registry import DataError, TeacherAnswer
from ampo_registry.testing import example_question


def by(teacher: str, score: float | None = None) -> TeacherAnswer:
    return TeacherAnswer(teacher, f"by {teacher}", (-0.5, -1.0), score)


def teachers(answers: list[TeacherAnswer], spec: Dataset | None = None) -> list[str]:
    found = (spec or Dataset()).answers(example_question(answers=answers))
    assert set(found) <= set(answers)
    return [answer.teacher for answer in found]


def test_missing_scores_come_last_in_row_order() -> None:
    assert teachers([by("A"), by("B", 0.1), by("C"), by("D", 0.1), by("E", 2)]) == ["E", "B", "D", "A", "C"]


def test_a_composition_keeps_some_teachers() -> None:
    answers = [by("A", 0.1), by("B", 0.2), by("C", 0.3), by("A", 0.4)]
    assert teachers(answers, Dataset(teachers=("A", "C"))) == ["A", "C", "A"]
    assert teachers([by("B")], Dataset(teachers=("A",))) == []


def test_a_teacher_that_no_row_has_is_found_before_training() -> None:
    questions = [example_question(answers=[by("Qwen3-8B")]), example_question()]
    Dataset(teachers=("Qwen3-8B",)).check_questions(questions)
    with pytest.raises(DataError, match="'Qwen3-8b'; found Qwen3-8B; did you mean 'Qwen3-8B'"):
        Dataset(teachers=("Qwen3-8B", "Qwen3-8b")).check_questions(questions)
    Dataset().check_questions([example_question()])


def test_an_empty_filter_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Dataset(teachers=())
