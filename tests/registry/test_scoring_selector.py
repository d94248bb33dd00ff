"""Selectors that only score: what they may return, and which score is reported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Any, Literal

import pytest
from ampo_registry import (
    Grade,
    Guidance,
    PluginError,
    Question,
    ScoringSelectorSpec,
    Selection,
    SelectionContext,
    SelectionRequest,
)
from ampo_registry.testing.examples import FakeScorer
from ampo_registry.text import nearest


class Given(ScoringSelectorSpec):
    """Gives the scores of its option."""

    type: Literal["given"] = "given"
    scores: tuple[tuple[float, ...], ...]
    key: float | None = None

    def score(self, requests: Sequence[SelectionRequest], context: SelectionContext) -> list[list[float]]:
        return [list(found) for found in self.scores]

    def rank_key(self, candidate: Guidance, score: float) -> float:
        return score if self.key is None else self.key


def select(*scores: Sequence[float], k: int = 2, **options: Any) -> list[Selection]:
    candidates = tuple(Guidance(name, name, (1,), Grade(1.0, True, True)) for name in "AB")
    request = SelectionRequest(Question("uid", (), (), "42", "test"), (), candidates, k, Random(0))
    spec = Given(scores=tuple(map(tuple, scores)), **options)
    return spec.select([request], SelectionContext(FakeScorer(), 1))[0]


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        ([[0.5]], {}, "gave 1 scores for 2 candidates"),
        ([[0.5, 0.4, 0.3]], {}, "gave 3 scores for 2 candidates"),
        ([], {}, "gave 0 lists of scores for 1 requests"),
        ([[0.5, math.nan]], {}, "the score of B's answer to question uid is nan"),
        ([[math.nan, 0.5]], {"score_rounding": "bfloat16"}, "the score of A's answer"),
        ([[0.5, 0.5]], {"key": math.nan}, "the rank key of A's answer"),
    ],
)
def test_scores_that_cannot_be_ranked_are_refused_by_the_class_name(scores: Any, options: Any, message: str) -> None:
    with pytest.raises(PluginError, match=f"selector Given: .*{message}"):
        select(*scores, **options)


def test_infinite_scores_have_an_order() -> None:
    assert [found.guidance.teacher for found in select([-math.inf, 0.0])] == ["B", "A"]


@pytest.mark.parametrize("rounding", ["bfloat16", {"decimals": 1}])
def test_rounding_decides_the_rank_and_the_raw_score_is_reported(rounding: Any) -> None:
    (first, second) = select([0.50001, 0.50002], score_rounding=rounding)
    assert [(found.guidance.teacher, found.score) for found in (first, second)] == [("A", 0.50001), ("B", 0.50002)]
    assert select([0.50001, 0.50002], k=1)[0].guidance.teacher == "B"


def test_nearest_is_the_likeliest_misspelling_or_nothing() -> None:
    assert nearest("lenght", ["random", "length", "lens"]) == "length"
    assert nearest("zebra", ["random", "length"]) == ""
    assert nearest("x", iter(())) == ""
