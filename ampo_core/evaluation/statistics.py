"""Estimates from k samples a question, and how sure they are. All intervals resample questions, not samples:
questions are what a held-out set is a sample of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy
from numpy.typing import NDArray

from ampo_core.report.scores import Estimate

RESAMPLES = 2000
CONFIDENCE = 0.95
# Resampling weights are drawn in blocks of this many numbers, so that large sets stay small in memory.
BLOCK_NUMBERS = 4_000_000


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """The unbiased estimate 1 - C(n-c, k) / C(n, k) of solving a question within k tries (Chen et al., 2021).

    `correct` of `samples` were right. With k > samples there is no estimate, and the value is 0.
    """
    if k > samples:
        return 0.0
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def average(values: Sequence[float]) -> float:
    """The mean; nan of nothing."""
    return math.fsum(values) / len(values) if values else math.nan


def bootstrap_macro_mean(sets: Sequence[Sequence[float]], seed: int) -> Estimate:
    """The mean over sets of each set's mean; every set's questions are resampled on their own.

    Raises ValueError if there is no set or an empty one.
    """
    if not sets or not all(len(values) for values in sets):
        raise ValueError("a bootstrap needs at least one question in each set")
    generator = numpy.random.default_rng(seed)
    means = numpy.mean([resampled_means(values, generator) for values in sets], axis=0)
    return Estimate(average([average(values) for values in sets]), *percentiles(means))


def paired(ours: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, float]:
    """ours - theirs, question by question, over those that both have; this takes their difficulty out."""
    return {uid: value - theirs[uid] for uid, value in ours.items() if uid in theirs}


def percentiles(means: NDArray[numpy.float64]) -> tuple[float, float]:
    """The percentile bootstrap interval of resampled `means`."""
    tail = (1.0 - CONFIDENCE) / 2
    low, high = numpy.quantile(means, [tail, 1.0 - tail])
    return float(low), float(high)


def resampled_means(values: Sequence[float], generator: numpy.random.Generator) -> NDArray[numpy.float64]:
    """[RESAMPLES] means of `values` drawn with replacement."""
    data = numpy.asarray(values, dtype=numpy.float64)
    rows = max(1, BLOCK_NUMBERS // len(data))
    blocks = []
    for start in range(0, RESAMPLES, rows):
        drawn = generator.integers(len(data), size=(min(rows, RESAMPLES - start), len(data)))
        blocks.append(data[drawn].mean(axis=1))
    return numpy.concatenate(blocks)
