"""Shapings: values and gradients of the released program, and safety at the far end."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ampo_plugins.shapings.identity import Identity
from ampo_plugins.shapings.log_prob import LogProb
from ampo_plugins.shapings.p_plus_log_prob import PPlusLogProb
from ampo_plugins.shapings.power import Power
from ampo_plugins.shapings.ratio import Ratio
from ampo_registry import ShapingSpec

RESHAPES: dict[str, ShapingSpec] = {
    "off_reshape:no_reshape": Identity(),
    "off_reshape:logp": LogProb(weight=0.1),
    "off_reshape:p_logp": PPlusLogProb(weight=0.1),
    "off_reshape:square_root": Power(exponent=0.5),
    "off_reshape:pow": Power(exponent=0.5),
    "off_reshape:p_div_p_0.1": Ratio(gamma=0.1),
    "off_reshape:p_div_p_0.3": Ratio(gamma=0.3),
    "off_reshape:p_div_p_0.5": Ratio(gamma=0.5),
}


def test_every_reshape_of_the_golden_file_is_bound(golden: Callable[[str], dict[str, Any]]) -> None:
    names = {case["config_name"] for case in golden("loss_mixed")["cases"]}
    assert {name for name in names if name.startswith("off_reshape:")} == RESHAPES.keys()


@pytest.mark.parametrize("name", RESHAPES)
def test_values_and_gradients_match_the_released_reshape(name: str, golden: Callable[[str], dict[str, Any]]) -> None:
    """In the file d loss / d log_prob of a teacher token is -A·f'/L, and `off_ratio_mean` is the mean of f
    over tokens (`token`), or over sequences of their means (`seq`).
    """
    file = golden("loss_mixed")
    cases = [case for case in file["cases"] if case["config_name"] == name and case["target_probs"] is None]
    checked = 0
    for case in cases:
        batch = file["batches"][case["batch"]]
        off = torch.tensor(batch["prefix_mask"]) & torch.tensor(batch["eos_mask"]).bool()
        if not off.any():
            continue
        log_ratio = torch.tensor(batch["log_prob"], dtype=torch.float64)[off].requires_grad_()
        shaped = RESHAPES[name].shape(log_ratio)
        (gradient,) = torch.autograd.grad(shaped.sum(), log_ratio)
        if case["impl"] == "token":
            mean = shaped.mean().item()
        else:
            mean = sum(row.mean().item() for row in shaped.split(off.sum(1).tolist()) if len(row)) / int(
                off.any(1).sum()
            )
        assert mean == pytest.approx(case["out"]["off_ratio_mean"], rel=1e-5)
        advantages = torch.tensor(batch["advantages"], dtype=torch.float64)[off]
        found = -advantages * gradient / off.shape[1]
        expected = torch.tensor(case["grad_log_prob"], dtype=torch.float64)[off]
        torch.testing.assert_close(found, expected, rtol=2e-5, atol=1e-8)
        checked += 1
    assert checked >= 4


@pytest.mark.parametrize(
    "spec", [Ratio(), Ratio(gamma=1e-3), Identity(), Power(), Power(exponent=100.0), LogProb(), PPlusLogProb()]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_stay_finite(spec: ShapingSpec, dtype: torch.dtype) -> None:
    log_ratio = torch.tensor([0.0, -1e-6, -1.0, -50.0, -110.0, -1e3, -1e4, 1.0, 20.0], dtype=dtype, requires_grad=True)
    shaped = spec.shape(log_ratio)
    (gradient,) = torch.autograd.grad(shaped.sum(), log_ratio)
    assert shaped.dtype == dtype
    assert torch.isfinite(shaped).all()
    assert torch.isfinite(gradient).all()
    assert (gradient >= 0).all()


@pytest.mark.parametrize("spec", [Ratio(), Identity(), Power(exponent=0.3), PPlusLogProb()])
def test_gradients_are_those_of_finite_differences(spec: ShapingSpec) -> None:
    log_ratio = torch.linspace(-6.0, 0.0, 13, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(spec.shape, (log_ratio,))


def test_ratio_is_x_over_x_plus_gamma() -> None:
    for x in (1e-8, 0.05, 0.1, 1.0, 3.0):
        found = Ratio(gamma=0.1).shape(torch.tensor(math.log(x), dtype=torch.float64)).item()
        assert found == pytest.approx(x / (x + 0.1), rel=1e-12)


def test_ratio_stays_below_one_where_the_ratio_itself_overflows() -> None:
    """Recorded teacher probabilities allow log-ratios above 0; exp(1e3) would be inf, x/(x+γ) is 1."""
    assert Ratio().shape(torch.tensor([1e3])).tolist() == [1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_power_is_cut_off_only_where_it_would_overflow(dtype: torch.dtype) -> None:
    log_ratio = torch.tensor([0.0, -0.3, -7.0, -1e4, 1.0, 7.9], dtype=dtype)
    assert torch.equal(Power(exponent=10.0).shape(log_ratio), (10.0 * log_ratio).exp())
    assert Power(exponent=10.0).shape(log_ratio.new_tensor([20.0])).item() == pytest.approx(math.exp(80.0))


def test_the_defaults_are_those_of_the_released_program() -> None:
    assert (LogProb(), PPlusLogProb()) == (LogProb(weight=0.1), PPlusLogProb(weight=0.1))
    assert (Power(), Ratio()) == (Power(exponent=0.5), Ratio(gamma=0.1))
