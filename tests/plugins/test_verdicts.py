"""No right answer is refused and no wrong one accepted that was not so before: benchmarks/verdicts.py, looked at."""

import os
import sys
from itertools import combinations
from pathlib import Path

import pytest
from ampo_plugins.rewards.math_verify import MathVerify
from ampo_plugins.rewards.normalise import normalised
from ampo_plugins.rewards.numbers import read_number, same_number
from ampo_registry import GradeRequest

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("AMPO_SHARED", ROOT / ".." / "shared")) / "data"
EQUAL = {frozenset(("-3./2", "$-\\frac{3}{2}$"))}
"""Ground truths that are each other's, and that Math-Verify alone cannot tell to be."""

needs_files = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"the authors' data files are not at {DATA}; set AMPO_SHARED to the folder above data/"
)


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import verdicts
    finally:
        sys.path.pop(0)
    return verdicts


@pytest.fixture(scope="module")
def truths(benchmark):
    return benchmark.read_truths(sorted(DATA.glob("*.parquet")))


def correct(spec, pairs):
    return [grade.correct for grade in spec.grade([GradeRequest(f"<answer> {a} </answer>", t) for a, t in pairs])]


def test_the_sample_of_the_authors_files(benchmark):
    made = benchmark.cases(benchmark.read_truths([benchmark.SAMPLE])[::2])
    for name, pairs in made.items():
        verdicts = correct(MathVerify(), pairs)
        if name in benchmark.VARIANTS:
            assert [pair for pair, right in zip(pairs, verdicts, strict=True) if not right] == [], name
        else:
            accepted = [pair for pair, right in zip(pairs, verdicts, strict=True) if right]
            assert correct(MathVerify(**benchmark.RELEASED), accepted) == [True] * len(accepted), name


@needs_files
def test_every_way_to_write_a_truth_is_normalised_to_the_truth(benchmark, truths):
    assert len(truths) == 1054
    rewritten = {"power of ten for e-notation", "° for `^\\circ`"}
    for name, write in benchmark.VARIANTS.items():
        if name not in rewritten | {"in a box, full stop"}:
            assert [t for t in truths if normalised(write(t)) != normalised(t)] == [], name
    powers = [t for t in truths if benchmark.power_of_ten(t) != t]
    assert len(powers) == 58
    assert all(same_number(read_number(t), read_number(benchmark.power_of_ten(t))) for t in powers)


@needs_files
def test_no_number_is_taken_for_another(benchmark, truths):
    numbers = {truth: number for truth in truths if (number := read_number(truth))}
    assert len(numbers) > 600
    for (one, first), (other, second) in combinations(numbers.items(), 2):
        equal = same_number(first, second) or same_number(second, first)
        assert not equal or first.value == second.value or first.percent != second.percent, (one, other)
    for truth, number in numbers.items():
        for mutate in benchmark.MUTANTS.values():
            for wrong in mutate(truth):
                mutant = read_number(wrong)
                if "mbox" in truth:  # the power of a unit, which Math-Verify drops with the unit
                    continue
                assert mutant is None or not same_number(number, mutant), (truth, wrong)


@needs_files
@pytest.mark.process
@pytest.mark.slow
def test_all_truths_in_all_ways(benchmark, truths):
    made = benchmark.cases(truths)
    for name, pairs in made.items():
        now = benchmark.verdicts(MathVerify(timeout_s=60, max_error_rate=1.0), pairs)
        kept = [pair for pair, right in zip(pairs, now, strict=True) if right]
        if name in benchmark.VARIANTS:
            assert len(kept) == len(pairs), name
        else:
            released = MathVerify(timeout_s=60, max_error_rate=1.0, **benchmark.RELEASED)
            before = benchmark.verdicts(released, kept)
            fresh = [pair for pair, right in zip(kept, before, strict=True) if not right]
            assert {frozenset(pair) for pair in fresh} <= EQUAL, name
