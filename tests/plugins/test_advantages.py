"""Advantages against the equations and the released numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from ampo_plugins.advantages.group_normalized import GroupNormalized
from ampo_plugins.advantages.mean_only import MeanOnly
from ampo_plugins.advantages.on_policy_baseline import OnPolicyBaseline
from ampo_registry import AdvantageSpec

Golden = Callable[[str], dict[str, Any]]
ALL: list[AdvantageSpec] = [
    GroupNormalized(),
    GroupNormalized(ddof=1),
    GroupNormalized(eps=0.0),
    MeanOnly(),
    OnPolicyBaseline(),
    OnPolicyBaseline(ddof=1),
]


def advantages(spec: AdvantageSpec, rewards: Sequence[float], off: Sequence[int] = ()) -> list[float]:
    values = torch.tensor(rewards, dtype=torch.float64)
    off_policy = torch.tensor([i in off for i in range(len(rewards))], dtype=torch.bool)
    found = spec.advantages(values, values >= 0.6, off_policy)
    assert found.dtype == torch.float64
    return found.tolist()


def test_equations_1_and_6(golden: Golden) -> None:
    cases = golden("paper_eq1_3_6")["cases"]
    assert len(cases) == 3
    for case in cases:
        rewards = case["rewards"]
        assert advantages(GroupNormalized(), rewards) == pytest.approx(case["adv_ddof0"], rel=1e-12)
        assert advantages(GroupNormalized(ddof=1), rewards) == pytest.approx(case["adv_ddof1"], rel=1e-12)
        assert advantages(MeanOnly(), rewards) == pytest.approx(case["adv_nostd"], rel=1e-12)


EQUAL = "the fp32 mean of equal rewards is not that reward, which leaves -0.007 there; exactly 0 here"
SINGLETON = "a group of one keeps its raw reward there; it has nothing to be compared with and gets 0 here"
DIFFERENCES = {("all_wrong", "a"): EQUAL, ("singleton", "a"): SINGLETON}
"""By (case, group)."""
SPLIT_DIFFERENCES = DIFFERENCES | {
    ("ampo_k1", "a"): "fp32 leaves a std of 1e-8 to divide by there (the teacher gets 892815); it counts as 1 here",
    ("single_on_policy_left", "a"): "a lone rollout is measured against 0 there; it is the baseline here",
}
NAMES = {
    "mixed",
    "all_wrong",
    "all_zero",
    "ampo_k2",
    "ampo_k1",
    "ampo_k4",
    "two_groups_interleaved",
    "singleton",
    "repetition_penalty",
    "single_on_policy_left",
}


def groups(case: dict[str, Any]) -> list[list[int]]:
    """Row numbers of each group."""
    return [[i for i, key in enumerate(case["index"]) if key == name] for name in dict.fromkeys(case["index"])]


def test_group_normalized_matches_the_released_program(golden: Golden) -> None:
    cases = golden("grpo_advantage")["cases"]
    assert {case["name"] for case in cases} == NAMES
    for case in cases:
        assert case["norm_adv_by_std_in_grpo"] is True
        for rows in groups(case):
            found = advantages(GroupNormalized(ddof=1), [case["scores"][i] for i in rows])
            if (case["name"], case["index"][rows[0]]) in DIFFERENCES:
                assert found == [0.0] * len(rows)
            else:
                assert found == pytest.approx([case["scalar"][i] for i in rows], rel=2e-6, abs=1e-7)


def test_mean_only_is_the_released_advantage_times_its_std(golden: Golden) -> None:
    """The file holds the divided form only: its numerator is what `mean_only` gives."""
    for case in golden("grpo_advantage")["cases"]:
        for rows in groups(case):
            if (case["name"], case["index"][rows[0]]) in DIFFERENCES:
                continue
            scores = [case["scores"][i] for i in rows]
            std = torch.tensor(scores, dtype=torch.float64).std().item() + 1e-6
            expected = [case["scalar"][i] * std for i in rows]
            assert advantages(MeanOnly(), scores) == pytest.approx(expected, rel=2e-6, abs=1e-7)


def test_on_policy_baseline_matches_the_released_split(golden: Golden) -> None:
    for case in golden("grpo_advantage")["cases"]:
        for rows in groups(case):
            off = [slot for slot, i in enumerate(rows) if i in case["off_policy_rows"]]
            found = advantages(OnPolicyBaseline(ddof=1), [case["scores"][i] for i in rows], off)
            expected = [case["split_advantages"][i][0] for i in rows]
            same = found == pytest.approx(expected, rel=2e-6, abs=1e-7)
            assert same is ((case["name"], case["index"][rows[0]]) not in SPLIT_DIFFERENCES), case["name"]


def test_where_the_split_differs_the_baseline_stays_sane() -> None:
    assert advantages(OnPolicyBaseline(ddof=1), [0.1] * 7 + [1.0], [7]) == pytest.approx([0.0] * 7 + [0.9], rel=1e-5)
    assert advantages(OnPolicyBaseline(ddof=1), [0.1] * 7 + [1.0], [7])[:7] == [0.0] * 7
    assert advantages(OnPolicyBaseline(ddof=1), [0.1, 1.0, 1.0], [1, 2]) == pytest.approx([0.0, 0.9, 0.9], rel=1e-5)
    assert advantages(OnPolicyBaseline(), [0.9, 1.0], [0, 1]) == pytest.approx([-1.0, 1.0], rel=1e-4)


def test_a_std_that_is_as_good_as_none_counts_as_one() -> None:
    """1e-6 itself still divides: the std of two rewards is half their distance."""
    spec = OnPolicyBaseline(eps=0.0)
    assert advantages(spec, [0.0, 2e-6]) == pytest.approx([-1.0, 1.0])
    assert advantages(spec, [0.0, 1e-6]) == pytest.approx([-5e-7, 5e-7])


@pytest.mark.parametrize("spec", ALL)
@pytest.mark.parametrize("reward", [0.0, 0.1, 0.9, 1.0, -0.1])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_equal_rewards_give_exactly_zero(spec: AdvantageSpec, reward: float, size: int) -> None:
    assert advantages(spec, [reward] * size, off=[0]) == [0.0] * size


@pytest.mark.parametrize("spec", ALL)
def test_an_empty_group_has_no_advantages(spec: AdvantageSpec) -> None:
    assert advantages(spec, []) == []


@pytest.mark.parametrize("spec", [GroupNormalized, MeanOnly, OnPolicyBaseline])
def test_a_lone_format_difference_counts_only_where_it_may(spec: Any) -> None:
    rewards = [0.1, 0.0, 0.0, 0.0]
    assert advantages(spec(), rewards)[0] > 0
    assert advantages(spec(zero_without_correct=True), rewards) == [0.0] * 4
    guided = [0.1, 0.0, 0.0, 1.0]
    assert advantages(spec(zero_without_correct=True), guided, [3]) == advantages(spec(), guided, [3])


def test_shifted_rewards_have_the_same_advantages() -> None:
    rewards = [0.0, 0.1, 0.9, 1.0]
    for spec in ALL:
        shifted = advantages(spec, [reward + 5.0 for reward in rewards], [3])
        assert shifted == pytest.approx(advantages(spec, rewards, [3]), rel=1e-9)
