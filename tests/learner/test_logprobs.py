"""Log-probs and entropies without logits, against log_softmax: values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ampo_core.learner.logprobs import LogprobHead, token_logprobs

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

LOSSES: dict[str, Loss] = {
    "both": lambda log_probs, entropies: (log_probs * torch.arange(1, 24) + entropies * torch.arange(23)).sum(),
    "log_probs": lambda log_probs, entropies: log_probs.square().sum(),
    "entropies": lambda log_probs, entropies: entropies.exp().sum(),
}


def inputs(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    hidden = torch.randn(23, 8, dtype=dtype, requires_grad=True)
    weight = torch.randn(50, 8, dtype=dtype, requires_grad=True)
    bias = torch.randn(50, dtype=dtype, requires_grad=True)
    return hidden, weight, bias, torch.randint(0, 50, (23,))


@pytest.fixture(params=[10**9, 23 * 7, 1], ids=["whole", "slices_of_7", "columns"])
def sliced(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ampo_core.learner.logprobs.SLICE_ELEMENTS", {"cpu": request.param})
    monkeypatch.setattr("ampo_core.learner.logprobs.FEWEST_COLUMNS", 1)


@pytest.mark.usefixtures("sliced")
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradients_are_those_of_log_softmax(loss: Loss, temperature: float) -> None:
    hidden, weight, bias, targets = inputs()
    found = token_logprobs(hidden, targets, weight, bias, temperature=temperature, entropy=True)
    logs = ((hidden @ weight.T + bias) / temperature).log_softmax(-1)
    wanted = logs[range(23), targets], -(logs.exp() * logs).sum(-1)
    torch.testing.assert_close(found, wanted)
    leaves = (hidden, weight, bias)
    torch.testing.assert_close(
        torch.autograd.grad(loss(*found), leaves), torch.autograd.grad(loss(*wanted), leaves), rtol=1e-10, atol=1e-12
    )


@pytest.mark.usefixtures("sliced")
def test_without_entropy_no_tokens_and_a_frozen_head() -> None:
    hidden, weight, bias, targets = inputs()
    log_probs, entropies = token_logprobs(hidden, targets, weight.detach(), None, temperature=1.0, entropy=False)
    assert entropies.shape == (0,)
    (found,) = torch.autograd.grad(log_probs.sum(), hidden)
    wanted = (hidden @ weight.T).log_softmax(-1)[range(23), targets].sum()
    torch.testing.assert_close(found, torch.autograd.grad(wanted, hidden)[0])
    none, _ = token_logprobs(hidden[:0], targets[:0], weight, bias, temperature=1.0, entropy=True)
    assert none.shape == (0,)
    assert all(float(g.abs().sum()) == 0.0 for g in torch.autograd.grad(none.sum() * 0.0, (hidden, weight, bias)))


def test_logits_of_any_size_stay_finite() -> None:
    weight = torch.tensor([[1e4], [-1e4], [0.0]], requires_grad=True)
    hidden = torch.tensor([[1.0], [-1.0]], requires_grad=True)
    found = token_logprobs(hidden, torch.tensor([0, 0]), weight, None, temperature=1.0, entropy=True)
    torch.testing.assert_close(found, (torch.tensor([0.0, -2e4]), torch.zeros(2)))
    grads = torch.autograd.grad(found[0].sum() + found[1].sum(), (hidden, weight))
    assert all(bool(grad.isfinite().all()) for grad in grads)


def test_a_bfloat16_head_gives_float32_log_probs() -> None:
    hidden, weight, bias, targets = inputs(torch.float32)
    low = [tensor.detach().bfloat16().requires_grad_() for tensor in (hidden, weight, bias)]
    found = token_logprobs(low[0], targets, low[1], low[2], temperature=1.0, entropy=True)
    wanted = token_logprobs(hidden, targets, weight, bias, temperature=1.0, entropy=True)
    assert {tensor.dtype for tensor in found} == {torch.float32}
    torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.1)
    grads = torch.autograd.grad(found[0].sum() + found[1].sum(), low)
    wanted_grads = torch.autograd.grad(wanted[0].sum() + wanted[1].sum(), (hidden, weight, bias))
    assert {grad.dtype for grad in grads} == {torch.bfloat16}
    for grad, exact in zip(grads, wanted_grads, strict=True):
        torch.testing.assert_close(grad.float(), exact, rtol=0.1, atol=0.1)


def test_the_module_owns_the_head_s_parameters() -> None:
    linear: Any = torch.nn.Linear(8, 50)
    head = LogprobHead(linear)
    assert {name: id(p) for name, p in head.named_parameters()} == {
        "weight": id(linear.weight),
        "bias": id(linear.bias),
    }
