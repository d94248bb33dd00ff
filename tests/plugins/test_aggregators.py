"""Aggregators against the golden aggregated losses, and their stated sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ampo_plugins.aggregators.constant import Constant
from ampo_plugins.aggregators.seq import Sequencewise
from ampo_plugins.aggregators.token import Tokenwise
from ampo_registry import AggregatorSpec, Totals

BY_MODE: dict[str, AggregatorSpec] = {"token-mean": Tokenwise(), "seq-mean-token-mean": Sequencewise()}


def test_weighted_sums_match_the_released_aggregation(golden: Callable[[str], dict[str, Any]]) -> None:
    names = []
    for case in golden("agg_loss")["cases"]:
        names.append((case["name"], case["mode"]))
        loss = torch.tensor(case["loss_mat"], dtype=torch.float64)
        mask = torch.tensor(case["loss_mask"], dtype=torch.float64)
        lengths = mask.sum(1).long()
        totals = Totals(int(lengths.sum()), int((lengths > 0).sum()), loss.shape[1])
        weights = BY_MODE[case["mode"]].token_weights(lengths, totals)
        found = (weights[:, None] * loss * mask).sum().item()
        if case["out"] == "nan":
            # A row without tokens makes their mean of means nan; here it contributes 0 and the other rows stand.
            rows = [(row * m).sum() / m.sum() for row, m in zip(loss, mask, strict=True) if m.sum() > 0]
            assert found == pytest.approx((sum(rows) / len(rows)).item(), rel=1e-12)
        else:
            assert found == pytest.approx(case["out"], rel=2e-6)
    batches = ("ragged", "empty_row", "full")
    assert names == [(name, mode) for name in batches for mode in ("token-mean", "seq-mean-token-mean")]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (Tokenwise(), [1 / 10] * 3),
        (Sequencewise(), [1 / (4 * 2), 1 / (4 * 5), 0.0]),
        (Constant(), [1 / 16] * 3),
        (Constant(length=8), [1 / 8] * 3),
        (Constant(per_sequence=True), [1 / (4 * 16)] * 3),
        (Constant(length=8, per_sequence=True), [1 / (4 * 8)] * 3),
    ],
)
def test_weights_come_from_the_totals_of_the_whole_scope(spec: AggregatorSpec, expected: list[float]) -> None:
    weights = spec.token_weights(torch.tensor([2, 5, 0]), Totals(tokens=10, sequences=4, max_response_tokens=16))
    assert weights.dtype == torch.float64
    assert weights.tolist() == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [(Tokenwise(), 1.0), (Sequencewise(), 0.5), (Constant(), 1 / 16), (Constant(per_sequence=True), 1 / 16)],
)
def test_one_of_a_kind_weighs_one(spec: AggregatorSpec, expected: float) -> None:
    """A scope of a token, of a sequence; and of none, which counts as one."""
    (weight,) = spec.token_weights(torch.tensor([2]), Totals(tokens=1, sequences=1, max_response_tokens=16)).tolist()
    assert weight == expected
    (empty,) = spec.token_weights(torch.tensor([2]), Totals(0, 0, 16)).tolist()
    assert empty == expected


@pytest.mark.parametrize("spec", [Tokenwise(), Sequencewise(), Constant(), Constant(per_sequence=True)])
def test_an_empty_scope_has_finite_weights(spec: AggregatorSpec) -> None:
    weights = spec.token_weights(torch.tensor([0, 0]), Totals(0, 0, 16))
    assert all(math.isfinite(weight) for weight in weights.tolist())


@pytest.mark.parametrize("spec", [Tokenwise(), Sequencewise(), Constant(), Constant(per_sequence=True)])
def test_depends_on_count_says_what_the_weights_do(spec: AggregatorSpec) -> None:
    lengths = torch.tensor([5])
    few, many = (spec.token_weights(lengths, Totals(5 * n, n, 64)) for n in (1, 4))
    assert spec.depends_on_count() == (not torch.equal(few, many))
