"""What a batch learns from: advantages without rollouts that have no verdict, and the group filter with resampling."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from ampo_plugins.advantages.group_normalized import GroupNormalized
from ampo_registry import BuildContext, CreditSpec, Grade, Message, Question, Rollout, RolloutGroup
from ampo_registry.testing import example_step

from ampo_core.checked.build import build
from ampo_core.config.objective import GroupFilterConfig
from ampo_core.loop.credit import GroupFilter, with_advantages
from ampo_core.loop.groups import GuidedQuestion, unguided

QUESTION = Question("q", (Message("user", "?"),), (1,), "7", "test")
VERDICT = {
    "right": Grade(1.0, True, True),
    "wrong": Grade(0.1, False, True),
    "late": Grade(0.1, False, True, "timeout"),
    "broken": Grade(0.0, False, False, "error"),
}


def group(*verdicts: str) -> GuidedQuestion:
    rollouts = tuple(Rollout((5, 6), (-1.0, -1.0), name, "stop", 0) for name in verdicts)
    return unguided(RolloutGroup(QUESTION, rollouts, tuple(VERDICT[name] for name in verdicts), 0.6))


def advantages(*verdicts: str) -> list[float]:
    return list(with_advantages([group(*verdicts)], GroupNormalized(), example_step())[0].groups[0].advantages)


def test_a_rollout_without_a_verdict_is_no_evidence() -> None:
    right, wrong, late, broken = advantages("right", "wrong", "late", "broken")
    assert [right, wrong] == advantages("right", "wrong")
    assert (late, broken) == (0.0, 0.0)
    assert advantages("right", "late", "right") == [0.0, 0.0, 0.0]
    assert advantages("late", "broken") == [0.0, 0.0]


class Given(CreditSpec):
    """The same of each group: a number, and one for each token as a list and as a tensor."""

    type: Literal["given"] = "given"

    def credit(self, groups: Any, context: Any) -> list[list[Any]]:
        return [[0.1, [0.1, 1 / 3], torch.tensor([0.1, 1 / 3], dtype=torch.float64)] for _ in groups]


def test_advantages_stay_in_double_precision() -> None:
    [question] = with_advantages([group("right", "right", "wrong")], Given(), example_step())
    number, listed, tensor = question.groups[0].advantages
    assert number == 0.1
    assert isinstance(listed, torch.Tensor)
    assert isinstance(tensor, torch.Tensor)
    assert listed.tolist() == tensor.tolist() == [0.1, 1 / 3]


def test_it_counts_as_wrong_for_trigger_and_replacement() -> None:
    grades = (Grade(0.9, False, True, "timeout"), VERDICT["right"], VERDICT["wrong"])
    rollouts = tuple(Rollout((5,), (-1.0,), "", "stop", 0) for _ in grades)
    rescued = RolloutGroup(QUESTION, rollouts, grades, 0.6)
    assert rescued.wrong == (0, 2)
    assert rescued.correct == (1,)


def filter_of(*drop: str, resample: bool = False, batch: int = 4) -> GroupFilter:
    return GroupFilter(GroupFilterConfig.model_validate({"drop": list(drop), "resample": resample}), batch)


def test_groups_without_signal_are_left_out() -> None:
    groups = [group("right", "wrong"), group("right", "right"), group("wrong", "wrong"), group("late", "late")]
    assert GroupFilter(None, 4).keep(groups) == [0, 1, 2]  # in the last one nothing has a verdict
    assert filter_of("all_correct", "all_wrong").keep(groups) == [0]
    assert filter_of("all_correct").keep(groups) == [0, 2]
    assert filter_of("all_wrong").keep(groups) == [0, 1]
    assert filter_of("all_correct").keep([group("right", "right", "late")]) == []


def test_without_resampling_a_step_samples_once() -> None:
    for chosen in (GroupFilter(None, 4), filter_of("all_wrong")):
        assert chosen.wants(0, 0) == 4
        assert chosen.wants(4, 2) == 0
        assert chosen.used([0, 2], 4) == 4


@pytest.mark.parametrize(
    ("sampled", "kept", "wanted"), [(0, 0, 8), (8, 4, 8), (8, 6, 3), (8, 7, 2), (8, 1, 16), (8, 0, 16)]
)
def test_resampling_asks_by_the_share_that_was_kept(sampled: int, kept: int, wanted: int) -> None:
    assert filter_of("all_wrong", resample=True, batch=8).wants(sampled, kept) == wanted
    assert filter_of("all_wrong", resample=True, batch=2).wants(2, 1) == 2


def test_resampling_ends_with_a_full_batch_or_ten_batches_of_questions() -> None:
    chosen = filter_of("all_wrong", resample=True, batch=8)
    assert chosen.wants(40, 8) == 0
    assert chosen.wants(76, 3) == 4
    assert chosen.wants(80, 3) == 0


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.7])
def test_few_rounds_fill_a_batch(rate: float) -> None:
    chosen, rng = filter_of("all_wrong", resample=True, batch=128), random.Random(0)
    groups: list[Any] = []
    rounds = 0
    kept: list[int] = []
    while count := chosen.wants(len(groups), len(kept)):
        groups += [group("right", "wrong") if rng.random() < rate else group("wrong", "wrong") for _ in range(count)]
        kept, rounds = chosen.keep(groups), rounds + 1
    assert len(kept) == 128
    assert rounds <= 7
    assert chosen.used(kept, len(groups)) == kept[-1] + 1 <= len(groups)


def test_questions_after_the_last_one_that_is_needed_come_again() -> None:
    chosen = filter_of("all_wrong", resample=True, batch=2)
    groups = [group("wrong", "wrong"), *[group("right", "wrong")] * 4]
    kept = chosen.keep(groups)
    assert kept == [1, 2]
    assert chosen.used(kept, len(groups)) == 3
    assert chosen.used([1], 20) == 20


def test_advantages_are_float64() -> None:
    seen = {}

    class Recording:
        def advantages(self, rewards: torch.Tensor, correct: torch.Tensor, off_policy: torch.Tensor) -> torch.Tensor:
            seen.update(rewards=rewards, correct=correct, off_policy=off_policy)
            return rewards

    with_advantages([group("right", "late")], Recording(), example_step())
    assert seen["rewards"].dtype == torch.float64
    assert seen["correct"].tolist() == [True]
    assert seen["off_policy"].tolist() == [False]


def test_groups_of_a_question_without_signal_are_left_out_alone() -> None:
    both = replace(group("right", "wrong"), groups=(*group("right", "wrong").groups, *group("right", "right").groups))
    chosen = filter_of("all_correct")
    assert chosen.keep([both]) == [0]
    assert chosen.trained(both).groups == both.groups[:1]


class Free(CreditSpec):
    """A credit that has a helper of the short form's name."""

    type: Literal["free"] = "free"

    def advantages(self, rewards: torch.Tensor) -> torch.Tensor:
        return rewards * 3

    def credit(self, groups: Any, context: Any) -> Any:
        return [[self.advantages(torch.tensor(5.0)) for _ in group.samples] for group in groups]


class Over(GroupNormalized):
    """An advantage of the short form that says itself what the free one is."""

    type: Literal["over"] = "over"  # type: ignore[assignment]

    def credit(self, groups: Any, context: Any) -> Any:
        return [[5.0 for _ in group.samples] for group in groups]


@pytest.mark.parametrize(("spec", "value"), [(Free(), 15.0), (Over(), 5.0)], ids=["helper", "override"])
@pytest.mark.parametrize("built", [False, True])
def test_a_credit_of_its_own_is_what_is_asked(spec: CreditSpec, value: float, built: bool) -> None:
    component = build(spec, BuildContext(place="advantage")) if built else spec
    (found,) = with_advantages([group("right", "wrong")], component, example_step())
    assert found.groups[0].advantages == (value, value)


def test_what_a_credit_computed_with_a_gradient_is_copied_without() -> None:
    own = torch.ones(2, requires_grad=True)

    class Learnt:
        def credit(self, groups: Any, context: Any) -> Any:
            return [[own for _ in group.samples] for group in groups]

    (found,) = with_advantages([group("right", "wrong")], Learnt(), example_step())
    with torch.no_grad():
        own.zero_()
    for value in found.groups[0].advantages:
        assert isinstance(value, torch.Tensor)
        assert not value.requires_grad
        assert value.tolist() == [1.0, 1.0]
