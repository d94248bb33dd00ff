"""Estimates over seeds."""

from __future__ import annotations

import math
import random

import pytest

from ampo_core.jobs.suite.statistics import difference, macro, over_seeds


def questions(chance: float, count: int, seed: int, prefix: str = "q") -> dict[str, float]:
    generator = random.Random(seed)
    return {f"{prefix}{i}": float(generator.random() < chance) for i in range(count)}


def test_every_set_counts_once_and_the_value_is_the_mean_over_seeds() -> None:
    small, large = {"a": 1.0}, {f"b{i}": 0.0 for i in range(99)}
    assert macro({"small": small, "large": large}) == 0.5
    found = over_seeds([{"s": {"a": 1.0}}, {"s": {"a": 0.0}}], 0)
    assert (found.seeds, found.mean) == ((1.0, 0.0), 0.5)
    assert found.spread == pytest.approx(math.sqrt(0.5))


def test_one_seed_has_no_spread_and_an_interval_of_its_questions() -> None:
    found = over_seeds([{"s": questions(0.5, 400, 1)}], 0)
    assert math.isnan(found.spread)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(400), rel=0.15)


def test_seeds_that_disagree_widen_the_interval() -> None:
    same = over_seeds([{"s": questions(0.5, 200, seed)} for seed in range(3)], 0)
    apart = over_seeds([{"s": questions(chance, 200, 5)} for chance in (0.1, 0.5, 0.9)], 0)
    assert apart.high - apart.low > 3 * (same.high - same.low)
    assert apart.low < 0.2
    assert apart.high > 0.8


def test_equal_questions_share_the_draw_and_other_questions_do_not() -> None:
    answers = questions(0.5, 100, 3)
    alone = over_seeds([{"s": answers}], 0)
    twins = over_seeds([{"s": answers}, {"s": answers}], 0)
    assert (twins.low, twins.high) == (alone.low, alone.high)
    others = over_seeds([{"s": answers}, {"s": {f"x{uid}": value for uid, value in answers.items()}}], 0)
    assert others.high - others.low < alone.high - alone.low


def test_the_same_numbers_give_the_same_interval() -> None:
    seeds = [{"s": questions(0.3, 50, seed)} for seed in range(3)]
    assert over_seeds(seeds, 1) == over_seeds(seeds, 1) != over_seeds(seeds, 2)


def test_differences_are_of_common_questions() -> None:
    ours, theirs = {"s": {"a": 1.0, "b": 0.5}, "t": {"c": 1.0}}, {"s": {"b": 0.25, "d": 1.0}, "u": {"c": 1.0}}
    assert difference(ours, theirs) == {"s": {"b": 0.25}}


@pytest.mark.parametrize("nothing", [[], [{}], [{"s": {}}], [{"s": {"a": 1.0}}, {}]])
def test_nothing_has_no_estimate(nothing: list[dict[str, dict[str, float]]]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        over_seeds(nothing, 0)
