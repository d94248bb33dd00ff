"""What stands in for a pool and an engine keeps the contract of one."""

from __future__ import annotations

from typing import Literal

from ampo_registry import BuildContext, RolloutEngine, RolloutSpec, TeacherAnswer, TeacherPool, TeacherPoolSpec
from ampo_registry.testing import (
    FakeEngine,
    FakePool,
    check_rollout,
    check_teacher_pool,
    example_question,
    example_report,
)


class Engined(RolloutSpec):
    """Samples without a model."""

    type: Literal["engined"] = "engined"

    def build(self, context: BuildContext) -> RolloutEngine:
        return FakeEngine()


class Pooled(TeacherPoolSpec):
    """Answers that are told."""

    type: Literal["pooled"] = "pooled"

    def build(self, context: BuildContext) -> TeacherPool:
        return FakePool()


def test_the_engine_and_the_pool_keep_their_contracts() -> None:
    check_rollout(Engined(), BuildContext(), weights=[("w", None)])  # type: ignore[list-item]
    check_teacher_pool(Pooled())


def test_a_pool_gives_what_it_is_told() -> None:
    told, other = example_question(0), example_question(1, answers=[TeacherAnswer("b", "its own")])
    pool = FakePool({told.uid: [TeacherAnswer("a", "told")]})
    assert [answer.text for question in (told, other) for answer in pool.answers(question)] == ["told", "its own"]
    assert pool.asked == [told, other]


def test_a_report_has_the_groups_that_were_asked_for() -> None:
    report = example_report(texts=(("a", "b"), ("c",)), step=3)
    assert [group.texts for group in report.groups] == [("a", "b"), ("c",)]
    assert [group.rewards for group in report.groups] == [(1.0, 0.1), (1.0,)]
    assert (report.step, report.metrics) == (3, {"reward/mean": 0.5})
