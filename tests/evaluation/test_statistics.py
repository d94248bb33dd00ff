"""pass@k against the released program and against its definition; intervals against known cases."""

import itertools
import json
import math
from fractions import Fraction
from pathlib import Path

import numpy
import pytest

from ampo_core.evaluation import statistics
from ampo_core.evaluation.statistics import average, bootstrap_macro_mean, paired, pass_at_k

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "pass_at_k.json").read_text())


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"n{case['n']}-c{case['c']}-k{case['k']}")
def test_pass_at_k_is_the_released_programs(case):
    assert pass_at_k(case["n"], case["c"], case["k"]) == pytest.approx(case["pass_at_k"], abs=1e-12)


@pytest.mark.parametrize(("samples", "correct", "k"), [(5, 2, 3), (6, 1, 4), (4, 3, 2), (6, 0, 2)])
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_one(samples, correct, k):
    subsets = list(itertools.combinations(range(samples), k))
    share = sum(min(subset) < correct for subset in subsets) / len(subsets)
    assert pass_at_k(samples, correct, k) == pytest.approx(share)


@pytest.mark.parametrize("samples", [32, 256, 4096])
def test_pass_at_k_of_many_samples_is_exact(samples):
    for correct in (0, 1, samples // 3, samples - 1, samples):
        for k in (1, 2, samples // 2, samples - 1, samples):
            share = 1 - Fraction(math.comb(samples - correct, k), math.comb(samples, k))
            assert pass_at_k(samples, correct, k) == pytest.approx(float(share), abs=1e-15)
    assert pass_at_k(samples, 1, 1) == pytest.approx(1 / samples)
    curve = [pass_at_k(samples, 3, k) for k in range(1, samples + 1)]
    assert curve == sorted(curve)
    assert curve[-1] == 1.0


def test_average():
    assert average([0.1] * 10) == 0.1
    assert math.isnan(average([]))


def test_interval_is_that_of_the_normal_approximation():
    values = [1.0] * 300 + [0.0] * 700
    estimate = bootstrap_macro_mean([values], seed=1)
    spread = 1.96 * math.sqrt(0.3 * 0.7 / 1000)
    assert estimate.value == 0.3
    assert estimate.low == pytest.approx(0.3 - spread, abs=0.004)
    assert estimate.high == pytest.approx(0.3 + spread, abs=0.004)


def test_intervals_are_seeded_and_blocks_cover_all_resamples(monkeypatch):
    values = numpy.random.default_rng(0).random(40).tolist()
    assert bootstrap_macro_mean([values], 3) == bootstrap_macro_mean([values], 3)
    assert bootstrap_macro_mean([values], 3) != bootstrap_macro_mean([values], 4)
    monkeypatch.setattr(statistics, "BLOCK_NUMBERS", 70)
    means = statistics.resampled_means(values, numpy.random.default_rng(0))
    assert means.shape == (statistics.RESAMPLES,)


def test_macro_mean_counts_each_set_once():
    estimate = bootstrap_macro_mean([[1.0] * 100, [0.0] * 3], seed=0)
    assert (estimate.value, estimate.low, estimate.high) == (0.5, 0.5, 0.5)


def test_pairing_removes_the_spread_between_questions():
    theirs = {str(i): i / 100 for i in range(100)}
    ours = {uid: value + 0.05 for uid, value in theirs.items()}
    apart = bootstrap_macro_mean([list(paired(ours, theirs).values())], seed=0)
    assert apart.value == pytest.approx(0.05)
    assert apart.high - apart.low < 1e-9
    assert apart.excludes_zero
    assert bootstrap_macro_mean([list(paired(theirs, ours).values())], seed=0).excludes_zero
    assert not bootstrap_macro_mean([[-1.0, 1.0, 0.0, 0.0]], seed=0).excludes_zero
    assert paired({"a": 1.0, "b": 0.5}, {"b": 0.25, "c": 1.0}) == {"b": 0.25}


def test_nothing_to_average_is_an_error():
    with pytest.raises(ValueError, match="at least one question"):
        bootstrap_macro_mean([[]], 0)


@pytest.mark.parametrize("numbers", [50, 300, 10**9])
def test_however_large_the_blocks_the_resampled_means_are_the_same(
    numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [float(i % 7) for i in range(100)]
    whole = statistics.resampled_means(values, numpy.random.default_rng(3))
    monkeypatch.setattr(statistics, "BLOCK_NUMBERS", numbers)
    blocks = statistics.resampled_means(values, numpy.random.default_rng(3))
    assert len(blocks) == 2000
    assert blocks.tolist() == whole.tolist()


def test_an_interval_leaves_a_fortieth_out_on_either_side() -> None:
    assert statistics.percentiles(numpy.arange(1001.0)) == pytest.approx((25.0, 975.0))


def test_one_empty_set_among_others_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one question in each set"):
        bootstrap_macro_mean([[1.0], []], seed=0)
