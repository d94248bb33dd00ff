"""Selector `comprehension`: the teacher whose reasoning leads the current policy best to the true answer (Eq. 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from ampo_registry import Guidance, RunError, ScoringSelectorSpec, SelectionContext, SelectionRequest
from pydantic import Field


class Comprehension(ScoringSelectorSpec):
    """Rank teacher answers by the policy's probability of the ground truth after the teacher's reasoning."""

    type: Literal["comprehension"] = "comprehension"
    mean: Literal["geometric", "arithmetic"] = Field(
        default="geometric", description="mean of the probabilities of the ground truth's tokens"
    )
    rank_format_weight: float = Field(
        default=0.0, ge=0.0, le=1.0, description="w in the rank key (1 - w)·score + w·formatted"
    )

    def score(self, requests: Sequence[SelectionRequest], context: SelectionContext) -> list[list[float]]:
        """r_p in [0, 1] of each candidate, from one collective pass over the candidates of all requests.

        Raises RunError if the scorer returns NaN, which would otherwise decide the ranking unnoticed.
        """
        items = [(request.question, candidate) for request in requests for candidate in request.candidates]
        logprobs = context.scorer.answer_logprobs(items)
        scores = [self._mean(candidate, found) for (_, candidate), found in zip(items, logprobs, strict=True)]
        remaining = iter(scores)
        return [[next(remaining) for _ in request.candidates] for request in requests]

    def rank_key(self, candidate: Guidance, score: float) -> float:
        """(1 - w)·r_p + w·format; with w = 0 the paper's order."""
        return (1.0 - self.rank_format_weight) * score + self.rank_format_weight * candidate.grade.formatted

    def _mean(self, candidate: Guidance, logprobs: Sequence[float]) -> float:
        if any(math.isnan(value) for value in logprobs):
            raise RunError(f"comprehension: the policy gives a log-prob of NaN to the answer of {candidate.teacher}")
        if not logprobs:
            return 0.0
        if self.mean == "geometric":
            return math.exp(min(math.fsum(logprobs) / len(logprobs), 0.0))
        return math.fsum(math.exp(min(value, 0.0)) for value in logprobs) / len(logprobs)
