"""Spec bases of selectors: the free form, and the form that only scores and inherits top-k and the tie rule."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from numbers import Real
from typing import ClassVar, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from ampo_registry.errors import PluginError
from ampo_registry.protocols import BuildContext, Selector
from ampo_registry.samples import Outcome
from ampo_registry.specs import ComponentSpec
from ampo_registry.step import SelectionContext
from ampo_registry.types import Guidance, Selection, SelectionRequest


class SelectorSpec(ComponentSpec):
    """Chooses teacher answers for all triggered groups of a step in one call."""

    kind: ClassVar[str] = "selector"
    behaviour: ClassVar[tuple[str, ...]] = ("select",)

    def build(self, context: BuildContext) -> Selector:
        return self

    def select(self, requests: Sequence[SelectionRequest], context: SelectionContext) -> list[list[Selection]]:
        """For each request at most `request.k` of its candidates, best first, none twice. Randomness comes
        only from `request.rng`."""
        self._missing("select")

    def feedback(self, outcomes: Sequence[Outcome]) -> None:
        """Called at the end of each step, before its checkpoint, with what became of all its questions in the order of
        the batch; on every rank alike, with equal outcomes."""


class Decimals(BaseModel):
    """Round scores to this many decimals before ranking."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    decimals: NonNegativeInt


class ScoringSelectorSpec(SelectorSpec):
    """A selector that only scores: the k candidates with the highest scores are chosen.

    `score_rounding` rounds scores before ranking, so that near-equal ones tie; `ties` are broken by the shorter
    answer (tokens) or by the dataset's order, and the dataset's order decides what is left.
    """

    behaviour: ClassVar[tuple[str, ...]] = ("score",)

    score_rounding: Literal["bfloat16"] | Decimals | None = Field(default=None, description="before ranking")
    ties: Literal["shorter", "dataset"] = Field(default="shorter", description="which of equal scores comes first")

    def score(self, requests: Sequence[SelectionRequest], context: SelectionContext) -> list[list[float]]:
        """One score for each candidate of each request; higher is better."""
        self._missing("score")

    def rank_key(self, candidate: Guidance, score: float) -> float:
        """What candidates are ranked by, given the rounded score."""
        return score

    def select(self, requests: Sequence[SelectionRequest], context: SelectionContext) -> list[list[Selection]]:
        """The k best-ranked candidates of each request, each with the score before rounding.

        Raises PluginError if `score` does not give one number for each candidate, or if a score or rank key is none
        or NaN, which has no place in an order.
        """
        scores = self.score(requests, context)
        self._check_count(scores, len(requests), "lists of scores", "requests")
        return [self._top(request, found) for request, found in zip(requests, scores, strict=True)]

    def _top(self, request: SelectionRequest, scores: Sequence[float]) -> list[Selection]:
        self._check_count(scores, len(request.candidates), "scores", "candidates")
        self._check_numbers(request, scores, "score")
        keys = [
            self.rank_key(candidate, self.round_score(score))
            for candidate, score in zip(request.candidates, scores, strict=True)
        ]
        self._check_numbers(request, keys, "rank key")

        def order(position: int) -> tuple[float, int, int]:
            length = len(request.candidates[position].token_ids) if self.ties == "shorter" else 0
            return (-keys[position], length, position)

        ranked = sorted(range(len(keys)), key=order)
        return [Selection(request.candidates[position], scores[position]) for position in ranked[: request.k]]

    def _check_count(self, found: object, wanted: int, what: str, of: str) -> None:
        if not isinstance(found, Sequence) or isinstance(found, str):
            raise PluginError(f"selector {type(self).__name__}: score() gave {found!r:.80}; expected {what}")
        number = len(cast(Sequence[object], found))
        if number != wanted:
            raise PluginError(f"selector {type(self).__name__}: score() gave {number} {what} for {wanted} {of}")

    def _check_numbers(self, request: SelectionRequest, values: Sequence[object], what: str) -> None:
        for candidate, value in zip(request.candidates, values, strict=True):
            if not isinstance(value, Real) or math.isnan(value):
                raise PluginError(
                    f"selector {type(self).__name__}: the {what} of {candidate.teacher}'s answer to question "
                    f"{request.question.uid[:12]} is {value!r:.80}; expected a number"
                )

    def round_score(self, score: float) -> float:
        """`score` as `score_rounding` says."""
        if self.score_rounding is None:
            return score
        if isinstance(self.score_rounding, Decimals):
            return round(score, self.score_rounding.decimals)
        return round_to_bfloat16(score)


def round_to_bfloat16(value: float) -> float:
    """The bfloat16 nearest to `value` (ties to even), by way of float32. Without torch."""
    bits: int = struct.unpack("<I", struct.pack("<f", value))[0]
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    rounded: float = struct.unpack("<f", struct.pack("<I", bits))[0]
    return rounded
