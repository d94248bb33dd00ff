"""Conformance of the components that work on tensors: aggregators, shapings, advantages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ampo_registry.credit import AdvantageSpec, CreditSpec
from ampo_registry.protocols import LARGEST_LOG_RATIO, Advantage, Aggregator, BuildContext, Shaping
from ampo_registry.specs import AggregatorSpec, ShapingSpec
from ampo_registry.testing.common import Rules, check_spec_class, check_state
from ampo_registry.testing.credit import check_credit
from ampo_registry.types import Totals

if TYPE_CHECKING:
    import torch

LOG_RATIOS = (0.0, -1e-3, -0.1, -1.0, -5.0, -20.0, -100.0, -1e3, -1e4, 1e-3, 1.0, 5.0, LARGEST_LOG_RATIO)
FINITE = (
    "must be finite for log-ratios from -1e4 to 20: above 0 is a token that its teacher, whose log-probs are recorded, "
    "found less likely than the policy does"
)


def check_aggregator(spec: AggregatorSpec, total: Callable[[Totals], float] | float | None = None) -> None:
    """An aggregator gives finite, positive float64 weights that do not depend on how the scope is split.

    `total`: what Σ weight·length over a whole scope comes to (a number or a function of the totals), if the
    aggregator promises it: 1 for `token` and `seq`.
    """
    import torch

    check_spec_class(spec)
    rule = Rules(spec)
    component: Aggregator = spec.build(BuildContext())
    for values in ([5], [1, 1, 1], [3, 700, 42, 8192], [0, 7, 0, 2]):
        lengths = torch.tensor(values, dtype=torch.int64)
        totals = Totals(tokens=sum(values), sequences=len(values), max_response_tokens=8192)
        weights = component.token_weights(lengths, totals)
        rule(weights.shape == lengths.shape, "there must be one weight for each sequence", tuple(weights.shape))
        rule(weights.dtype == torch.float64, "weights must be float64", weights.dtype)
        rule(bool(weights.isfinite().all()), f"weights must be finite for lengths {values}", weights)
        rule(bool((weights[lengths > 0] > 0).all()), "weights of sequences with tokens must be positive", weights)
        rule(torch.equal(lengths, torch.tensor(values)), "lengths must be left as they are")
        for cut in range(len(values) + 1):
            parts = [component.token_weights(part, totals) for part in (lengths[:cut], lengths[cut:])]
            rule(torch.equal(torch.cat(parts), weights), "a part of the scope must get the weights it has in the whole")
        if total is not None and 0 not in values:
            stated = total(totals) if callable(total) else total
            found = float((weights * lengths).sum())
            rule(
                abs(found - stated) <= 1e-9 * max(1.0, abs(stated)), f"weights must sum to {stated} over tokens", found
            )
    empty = component.token_weights(torch.zeros(0, dtype=torch.int64), Totals(0, 0, 8192))
    rule(empty.shape == (0,), "a scope without sequences must give no weights", tuple(empty.shape))
    check_state(spec, component)


def check_shaping(spec: ShapingSpec) -> None:
    """A shaping works token by token; value and gradient are finite for log-ratios from -1e4 up to 20."""
    import torch

    check_spec_class(spec)
    rule = Rules(spec)
    component: Shaping = spec.build(BuildContext())
    for dtype in (torch.float32, torch.float64):
        log_ratio = torch.tensor(LOG_RATIOS, dtype=dtype, requires_grad=True)
        shaped = component.shape(log_ratio)
        rule(shaped.shape == log_ratio.shape, "there must be one value for each token", tuple(shaped.shape))
        rule(shaped.dtype == dtype, f"the dtype must stay {dtype}", shaped.dtype)
        rule(shaped.requires_grad, "the shaped ratio must be differentiable")
        gradient = _gradient(shaped, log_ratio)
        rule(bool(shaped.isfinite().all()), f"values {FINITE}", shaped)
        rule(bool(gradient.isfinite().all()), f"gradients {FINITE}", gradient)
        rule(bool((gradient[:5] != 0).any()), "there must be a gradient for log-ratios from 0 to -5", gradient)
        rule(torch.equal(log_ratio, torch.tensor(LOG_RATIOS, dtype=dtype)), "log-ratios must be left as they are")
        alone = torch.cat([component.shape(log_ratio[i : i + 1]) for i in range(len(LOG_RATIOS))])
        rule(torch.allclose(alone, shaped, rtol=1e-6, atol=0.0), "a token's value must not depend on other tokens")
        empty = component.shape(torch.zeros(0, dtype=dtype))
        rule(empty.shape == (0,), "no tokens must give no values", tuple(empty.shape))
    check_state(spec, component)


def _gradient(output: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.autograd.grad(output.sum(), source)[0]


def check_advantage(spec: CreditSpec) -> None:
    """An advantage gives finite float64 values, exactly 0 for equal rewards, whatever the order of the group. One of
    the free form is checked as `check_credit` does."""
    import torch

    if not isinstance(spec, AdvantageSpec):
        check_credit(spec)
        return
    check_spec_class(spec)
    rule = Rules(spec)
    component: Advantage = spec.build(BuildContext())
    for reward in (0.0, 0.1, 0.9, 1.0, 1 / 3):
        for size in (1, 3, 8):
            values = _advantages(component, rule, [reward] * size, size // 3)
            rule(bool((values == 0).all()), f"{size} rewards of {reward} must give advantages of exactly 0", values)
    for rewards in ([0.0, 1.0], [0.0, 0.1, 0.9, 1.0], [0.0] * 7 + [1.0], [0.1, 0.0, -1.0, 0.1, 1.0, 1.0]):
        for teachers in (0, 1, len(rewards) - 1, len(rewards)):
            values = _advantages(component, rule, rewards, teachers)
            rule(bool(values.isfinite().all()), f"advantages of {rewards} must be finite", values)
            order = torch.tensor(list(reversed(range(len(rewards)))))
            turned = _advantages(component, rule, rewards, teachers, order)
            rule(torch.allclose(turned, values[order], rtol=1e-9, atol=1e-12), "the order of the group must not matter")
    check_state(spec, component)


def _advantages(
    component: Advantage, rule: Rules, rewards: list[float], teachers: int, order: torch.Tensor | None = None
) -> torch.Tensor:
    """Advantages of a group whose last `teachers` members are off-policy, permuted by `order`."""
    import torch

    size = len(rewards)
    given = [
        torch.tensor(rewards, dtype=torch.float64),
        torch.tensor(rewards) >= 0.9,
        torch.arange(size) >= size - teachers,
    ]
    given = [part if order is None else part[order] for part in given]
    kept = [part.clone() for part in given]
    values = component.advantages(given[0], given[1], given[2])
    rule(values.shape == (size,), "there must be one advantage for each response", tuple(values.shape))
    rule(values.dtype == torch.float64, "advantages must be float64", values.dtype)
    rule(all(map(torch.equal, given, kept)), "rewards and masks must be left as they are")
    return values
