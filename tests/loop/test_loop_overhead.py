"""benchmarks/loop_overhead.py at a tiny size: both ways do the same, one of them in a fraction of the memory."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from ampo_core.distributed.ranks import Ranks
from ampo_core.learner.packing import TokenPair
from ampo_core.learner.policy import Row

ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import loop_overhead

    return loop_overhead


def test_both_ways_are_measured_hop_by_hop(benchmark: ModuleType) -> None:
    compact, tuples = (benchmark.measure(benchmark.Case(way, 16, 200), ALONE) for way in ("compact", "tuples"))
    assert tuple(compact["seconds"]) == tuple(tuples["seconds"]) == benchmark.HOPS
    assert all(seconds > 0 for seconds in compact["seconds"].values())
    assert compact["mib"] < tuples["mib"] / 4


def test_both_ways_make_the_same_rows(benchmark: ModuleType) -> None:
    pairs = [((1, 2), (3, 4, 5)), ((6,), (7, 8))]
    compact = Row.of([TokenPair(*pair) for pair in pairs], ALONE.device)
    tuples = benchmark.plain_row(pairs, ALONE.device)
    found = (compact.token_ids, compact.positions, compact.predicting, compact.targets)
    for mine, theirs in zip(found, tuples, strict=True):
        assert torch.equal(mine, theirs)
        assert mine.dtype == theirs.dtype
