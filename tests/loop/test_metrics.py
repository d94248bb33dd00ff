"""Metrics of a step from what the step made."""

from __future__ import annotations

import pytest
from ampo_registry import Grade, Guidance, Question, Rollout, RolloutGroup, Sample, Selection

from ampo_core.loop.groups import AugmentedGroup, GuidedBatch, GuidedQuestion
from ampo_core.loop.metrics import group_metrics, group_report, guidance_metrics, rollout_metrics

QUESTION, GRADE = Question("q", (), (1,), "2", "toy"), Grade(1.0, True, True)


def group(*teachers: str | None) -> GuidedQuestion:
    """A sample for each name: the teacher's answer, or a rollout for None."""
    rollout = Rollout((5, 6), (-1.0, -1.0), "2", "stop", 0)
    samples = tuple(
        Sample.sampled(QUESTION, rollout, GRADE)
        if name is None
        else Sample.answer(QUESTION, Selection(Guidance(name, "2", (5, 6), GRADE)))
        for name in teachers
    )
    return GuidedQuestion(QUESTION, (AugmentedGroup(samples),), triggered=any(teachers))


def test_a_rewards_own_numbers_are_averaged_over_the_rollouts_that_have_them() -> None:
    grades = [{"mine/a": 1.0, "mine/b": 4.0}, {"mine/a": 2.0}, {}, {"mine/a": 3.0}]
    rollout = Rollout((5, 6), (-1.0, -1.0), "2", "stop", 0)
    groups = [
        RolloutGroup(
            QUESTION, (rollout,) * 2, tuple(Grade(0.0, False, True, numbers=n) for n in grades[i : i + 2]), 0.6
        )
        for i in (0, 2)
    ]
    found = rollout_metrics(groups, policy_version=0, known_ids=10)
    assert {name: value for name, value in found.items() if "mine" in name} == {"mine/a": 2.0, "mine/b": 4.0}


def test_the_answers_of_each_teacher_are_counted() -> None:
    found = guidance_metrics([group("a", "b", None), group("b", "b", "a"), group(None, None, None)])
    assert (found["guidance/answers/a"], found["guidance/answers/b"]) == (2.0, 3.0)
    assert (found["guidance/teacher/a"], found["guidance/teacher/b"]) == (0.4, 0.6)
    assert found["guidance/replaced"] == pytest.approx(5 / 3)
    assert found["tokens/teacher"] == 10.0
    assert found["guidance/format"] == 1.0
    assert not [name for name in guidance_metrics([group(None, None)]) if "answers" in name or "format" in name]


def test_answers_that_auxiliary_terms_alone_train_are_counted_as_teachers_and_not_as_replacements() -> None:
    extra, answer, late, silent = (
        (Sample.answer(QUESTION, Selection(Guidance(name, "2", (5, 6), GRADE)), term=term),)
        for name, term in (("a", "sft"), ("b", "sft"), ("c", "sft"), ("d", "off"))
    )
    routed = GuidedQuestion(QUESTION, (), extra=extra, triggered=True)
    beside = GuidedQuestion(QUESTION, group(None, "a").groups, answers=answer)
    batch = GuidedBatch((routed, beside), (*late, *silent))
    found = guidance_metrics(batch.questions, batch.beside(["on_policy", "sft"]))
    assert "guidance/answers/d" not in found
    assert found["guidance/replaced"] == 0.5
    assert [found[f"guidance/answers/{name}"] for name in "abc"] == [2.0, 1.0, 1.0]
    assert found["guidance/teacher/a"] == 0.5
    assert found["tokens/teacher"] == 8.0


def test_answers_that_auxiliary_terms_train_are_shown_beside_the_group() -> None:
    selection = Selection(Guidance("a", "2", (5, 6), GRADE))
    answer = Sample.answer(QUESTION, selection, term="sft")
    report = group_report(GuidedQuestion(QUESTION, group(None).groups, answers=(answer,)))
    assert report.sources == ("policy", "a")
    assert report.segments == ((("on_policy", 2),), (("sft", 2),))


def test_groups_with_an_advantage_are_counted_among_those_that_are_trained_on() -> None:
    samples = group(None, None).samples
    groups = [AugmentedGroup(samples, found) for found in ((0.0, 0.0), (1.0, -1.0))]
    batch = GuidedBatch(tuple(GuidedQuestion(QUESTION, (one,)) for one in groups))
    assert group_metrics(3, batch) == {"groups/sampled": 3.0, "groups/trained": 2.0, "groups/with_signal": 1.0}


def test_the_report_of_a_question_says_what_the_student_went_on_from() -> None:
    written = Rollout((7, 8), (-1.0, -1.0), " is 2", "stop", 0)
    answer = Selection(Guidance("a", "1+1 is two", (5, 6, 9), GRADE))
    segments = (("off_policy", 2), ("on_policy", 2))
    mixed = Sample(QUESTION, (1,), (5, 6, 7, 8), segments, "1+1 is 2", 1.0, GRADE, rollout=written, selection=answer)
    plain = group(None, "b").samples
    found = group_report(GuidedQuestion(QUESTION, (AugmentedGroup((*plain, mixed)),), extra=(mixed,)))
    assert found.sources == ("policy", "b", "a", "a")
    assert found.segments == ((("on_policy", 2),), (("off_policy", 2),), segments, segments)
    assert found.given == (0, 0, 3, 3)
