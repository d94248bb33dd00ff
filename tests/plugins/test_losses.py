"""Each loss against the formula of its paper, token by token in plain numbers, with its gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from ampo_registry import BuildContext, LossView, Totals
from ampo_registry.discovery import discover

CATALOG = discover().catalog
LENGTHS, ADVANTAGES = (2, 3, 1), (1.5, -0.5, -2.0)
LOGS = [-0.5, -1.0, -0.2, -2.0, -0.9, -0.05]
OLD = [-0.9, -0.95, -0.1, -2.6, -0.9, -0.5]
RECORDED = [-0.3, -2.5, -0.1, -1.0, -4.0, -0.06]
OWNER = [0, 0, 1, 1, 1, 2]
Tokens = Callable[[Sequence[float]], list[float]]


def view_of(logs: torch.Tensor) -> LossView:
    given = {"old": torch.tensor(OLD, dtype=torch.float64), "behaviour": torch.tensor(RECORDED, dtype=torch.float64)}
    advantages = torch.tensor([ADVANTAGES[i] for i in OWNER], dtype=torch.float64)
    return LossView(logs, advantages, torch.tensor(LENGTHS), given)


def mean_ratios(logs: Sequence[float]) -> list[float]:
    """s_i = exp(1/|y_i| Σ_t log r_t), of each sequence."""
    gaps = [[a - b for a, b, own in zip(logs, OLD, OWNER, strict=True) if own == i] for i in range(len(LENGTHS))]
    return [math.exp(sum(gap) / len(gap)) for gap in gaps]


def clipped(ratio: float, advantage: float, low: float, high: float) -> float:
    return -min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)


def per_token(formula: Callable[[int, float, float], float]) -> Tokens:
    """`formula` of (token, its log-prob, its advantage)."""
    return lambda logs: [formula(t, value, ADVANTAGES[OWNER[t]]) for t, value in enumerate(logs)]


def dual(t: int, value: float, advantage: float) -> float:
    loss = clipped(math.exp(value - OLD[t]), advantage, 0.2, 0.2)
    return min(loss, -1.5 * advantage) if advantage < 0 else loss


def cispo(t: int, value: float, advantage: float) -> float:
    """MiniMax-M1: the weight is a constant, taken at LOGS."""
    return -min(math.exp(LOGS[t] - OLD[t]), 1.2) * advantage * value


def shaped(t: int, value: float, advantage: float) -> float:
    """LUFFY's f(x) = x/(x + γ) of π_θ over the recorded π_φ."""
    ratio = math.exp(value - RECORDED[t])
    return -ratio / (ratio + 0.1) * advantage


FORMULAS: list[tuple[dict[str, Any], Tokens]] = [
    ({"type": "clip"}, per_token(lambda t, v, a: clipped(math.exp(v - OLD[t]), a, 0.2, 0.2))),
    (
        {"type": "clip", "low": 0.1, "high": 0.28},
        per_token(lambda t, v, a: clipped(math.exp(v - OLD[t]), a, 0.1, 0.28)),
    ),
    ({"type": "clip", "low": None, "high": None}, per_token(lambda t, v, a: -math.exp(v - OLD[t]) * a)),
    ({"type": "clip", "low": None}, per_token(lambda t, v, a: clipped(math.exp(v - OLD[t]), a, 1.0, 0.2))),
    ({"type": "clip", "dual": 1.5}, per_token(dual)),
    ({"type": "policy_gradient"}, per_token(lambda t, v, a: -a * v)),
    ({"type": "nll"}, per_token(lambda t, v, a: -v)),
    ({"type": "cispo"}, per_token(cispo)),
    (
        {"type": "gspo", "low": 0.05, "high": 0.1},
        lambda logs: [clipped(mean_ratios(logs)[i], ADVANTAGES[i], 0.05, 0.1) for i in OWNER],
    ),
    ({"type": "shaped"}, per_token(lambda t, v, a: -math.exp(v) / (math.exp(v) + 0.1) * a)),
    ({"type": "shaped", "behaviour_policy": "recorded"}, per_token(shaped)),
]


@pytest.mark.parametrize(("options", "formula"), FORMULAS, ids=[str(options) for options, _ in FORMULAS])
def test_tokens_cost_what_the_paper_says_and_the_gradient_is_that_of_its_formula(
    options: dict[str, Any], formula: Tokens
) -> None:
    loss: Any = CATALOG.resolve("loss", options).build(BuildContext())  # type: ignore[attr-defined]
    logs = torch.tensor(LOGS, dtype=torch.float64, requires_grad=True)
    losses = loss.token_losses(view_of(logs))
    assert losses.tolist() == pytest.approx(formula(LOGS), rel=1e-12)
    (gradient,) = torch.autograd.grad(losses.sum(), logs)
    for t in range(len(LOGS)):
        high, low = (sum(formula([v + sign * 1e-6 * (i == t) for i, v in enumerate(LOGS)])) for sign in (1, -1))
        assert float(gradient[t]) == pytest.approx((high - low) / 2e-6, rel=1e-6, abs=1e-9)


def test_gspo_under_the_aggregator_seq_is_the_mean_over_sequences_of_one_ratio_each() -> None:
    """GSPO: 1/G Σ min(s_i A_i, clip(s_i) A_i), and unclipped the gradient of a token is s_i A_i / |y_i| / G."""
    loss: Any = CATALOG.resolve("loss", {"type": "gspo", "low": 0.9, "high": 9.0})
    aggregator: Any = CATALOG.resolve("aggregator", "seq")
    logs = torch.tensor(LOGS, dtype=torch.float64, requires_grad=True)
    weights = aggregator.token_weights(torch.tensor(LENGTHS), Totals(6, 3, 8))
    view = view_of(logs)
    total = (view.spread(weights) * loss.token_losses(view)).sum()
    ratios = mean_ratios(LOGS)
    assert float(total.detach()) == pytest.approx(-sum(s * a for s, a in zip(ratios, ADVANTAGES, strict=True)) / 3)
    (gradient,) = torch.autograd.grad(total, logs)
    expected = [-ratios[i] * ADVANTAGES[i] / LENGTHS[i] / 3 for i in OWNER]
    assert gradient.tolist() == pytest.approx(expected, rel=1e-12)


def test_a_clip_fraction_counts_tokens_for_which_the_cut_makes_a_difference() -> None:
    def fraction(options: dict[str, Any], advantages: Sequence[float]) -> float:
        loss: Any = CATALOG.resolve("loss", options)
        logs = torch.tensor(LOGS, dtype=torch.float64, requires_grad=True)
        given = {"old": torch.tensor(OLD, dtype=torch.float64)}
        spread = torch.tensor([advantages[i] for i in OWNER], dtype=torch.float64)
        view = LossView(logs, spread, torch.tensor(LENGTHS), given)
        loss.token_losses(view)
        return float(view.measured["clip_fraction"])

    # log-ratios 0.4, -0.05 | -0.1, 0.6, 0 | 0.45
    assert fraction({"type": "clip"}, (1, 1, 1)) == 3
    assert fraction({"type": "clip"}, (-1, -1, -1)) == 0
    assert fraction({"type": "cispo"}, (1, -1, 0)) == 2
    assert fraction({"type": "gspo", "low": 0.05, "high": 0.1}, (1, 1, 0)) == 5
