"""Scores over several training seeds: mean, spread, and an interval that knows of both seeds and questions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev

import numpy
from numpy.typing import NDArray

from ampo_core.data.seeds import derive_seed
from ampo_core.evaluation.statistics import RESAMPLES, average, paired, percentiles, resampled_means
from ampo_core.report.scores import Estimate

Scores = Mapping[str, Mapping[str, float]]
"""set -> uid of a question -> a number of that question, such as its avg@K."""


@dataclass(frozen=True, slots=True)
class SeedEstimate:
    """Macro means, one for each of `seeds`: their mean with its interval [`low`, `high`], and their standard deviation
    (n - 1; nan of a single one)."""

    seeds: tuple[float, ...]
    low: float
    high: float
    mean: float
    spread: float

    @property
    def estimate(self) -> Estimate:
        """The mean with its interval."""
        return Estimate(self.mean, self.low, self.high)


def macro(scores: Scores) -> float:
    """The mean over sets of each set's mean over questions."""
    return average([average(list(questions.values())) for questions in scores.values()])


def over_seeds(seeds: Sequence[Scores], rng_seed: int) -> SeedEstimate:
    """The macro mean of each of `seeds`, and a percentile bootstrap interval of their mean.

    Each resample draws as many seeds with replacement, and within each set as many questions; seeds that answered the
    same questions share the draw, since an easy draw is easy for all of them. Few seeds make a rough interval: with
    one it knows nothing of seeds. Raises ValueError if there is no seed, no set or an empty set.
    """
    if not seeds or not all(scores and all(scores.values()) for scores in seeds):
        raise ValueError("a bootstrap needs at least one seed, and in each at least one question in each set")
    resampled = numpy.stack([_resampled_macro(scores, rng_seed) for scores in seeds])
    generator = numpy.random.default_rng(derive_seed("seeds", rng_seed))
    drawn = generator.integers(len(seeds), size=(len(seeds), RESAMPLES))
    low, high = percentiles(numpy.take_along_axis(resampled, drawn, axis=0).mean(axis=0))
    means = tuple(macro(scores) for scores in seeds)
    return SeedEstimate(means, low, high, average(means), stdev(means) if len(means) > 1 else math.nan)


def difference(ours: Scores, theirs: Scores) -> Scores:
    """ours - theirs, question by question, over what both answered. Sets without a common question are left out."""
    both = {name: paired(questions, theirs.get(name, {})) for name, questions in ours.items()}
    return {name: questions for name, questions in both.items() if questions}


def _resampled_macro(scores: Scores, rng_seed: int) -> NDArray[numpy.float64]:
    """[RESAMPLES] macro means; the draws depend on the questions and on `rng_seed` alone."""
    means = []
    for name, questions in sorted(scores.items()):
        uids = sorted(questions)
        generator = numpy.random.default_rng(derive_seed("questions", rng_seed, name, *uids))
        means.append(resampled_means([questions[uid] for uid in uids], generator))
    averaged: NDArray[numpy.float64] = numpy.mean(means, axis=0)
    return averaged
