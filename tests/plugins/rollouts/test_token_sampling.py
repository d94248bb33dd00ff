"""Inverse-CDF sampling against the distributions it claims."""

import pytest
import torch
from ampo_plugins.rollouts.transformers.token_sampling import nucleus, sample_tokens, uniforms
from ampo_registry import RunError

LOGITS = torch.tensor([2.0, 0.5, -1.0, 1.0, -4.0, 0.0])


def chi_square(counts, probabilities):
    expected = probabilities * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


def draw(temperature, top_p, count=40_000):
    uniform = uniforms([7], count)[0]
    return sample_tokens(LOGITS.expand(count, -1), uniform, temperature, top_p)


def test_samples_follow_the_softmax():
    for temperature in (0.6, 1.0, 1.7):
        tokens, logprobs = draw(temperature, 1.0)
        expected = (LOGITS / temperature).softmax(-1).double()
        counts = torch.bincount(tokens, minlength=6).double()
        assert chi_square(counts, expected) < 20.5  # 99.9 % of chi-square with 5 degrees of freedom
        torch.testing.assert_close(logprobs.double(), expected.log()[tokens], atol=1e-6, rtol=1e-6)


def test_temperature_0_takes_the_most_probable_token_with_its_log_prob_at_temperature_1():
    logits = torch.stack([LOGITS, LOGITS.flip(0), torch.tensor([0.0, 3.0, 1.0, 3.0, 0.0, 0.0])])
    for uniform in (0.0, 0.999):
        tokens, logprobs = sample_tokens(logits, torch.full((3,), uniform, dtype=torch.float64), 0.0, 0.1)
        assert tokens.tolist() == [0, 5, 1]
        torch.testing.assert_close(logprobs, logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1))
    with pytest.raises(RunError, match="not finite"):
        sample_tokens(torch.tensor([[0.0, float("nan")]]), torch.zeros(1, dtype=torch.float64), 0.0, 1.0)


def test_the_chi_square_would_notice_another_temperature():
    counts = torch.bincount(draw(1.0, 1.0)[0], minlength=6).double()
    assert chi_square(counts, (LOGITS / 1.1).softmax(-1).double()) > 100


def test_top_p_keeps_the_smallest_set_that_reaches_the_mass():
    probabilities = torch.tensor([[0.1, 0.5, 0.15, 0.25], [0.97, 0.01, 0.01, 0.01]])
    kept = nucleus(probabilities.log(), 0.7).exp()
    torch.testing.assert_close(kept, torch.tensor([[0, 0.5 / 0.75, 0, 0.25 / 0.75], [1.0, 0, 0, 0]]))


def test_top_p_samples_follow_the_renormalised_nucleus():
    tokens, logprobs = draw(1.0, 0.8)
    full = LOGITS.softmax(-1)
    kept = torch.tensor([0, 3, 1])  # 0.562 + 0.207 + 0.125: the first two reach 0.77 only
    assert set(tokens.tolist()) == {0, 1, 3}
    expected = (full[kept] / full[kept].sum()).double()
    counts = torch.bincount(tokens, minlength=6)[kept].double()
    assert chi_square(counts, expected) < 13.9
    assert abs(float(logprobs[tokens == 0][0].exp()) - float(expected[0])) < 1e-6


def test_a_token_without_probability_is_never_drawn():
    logits = torch.tensor([[0.0, float("-inf"), 0.0, float("-inf")]]).expand(4, -1)
    uniform = torch.tensor([0.0, 0.5, 1 - 2**-53, 1.0], dtype=torch.float64)
    tokens, _ = sample_tokens(logits, uniform, 1.0, 1.0)
    assert tokens.tolist() == [0, 2, 2, 2]


def test_a_rows_numbers_depend_on_its_seed_alone():
    both = uniforms([3, 11], 5)
    torch.testing.assert_close(uniforms([11], 5)[0], both[1], rtol=0, atol=0)
    torch.testing.assert_close(uniforms([11], 3)[0], both[1, :3], rtol=0, atol=0)
    assert not torch.equal(both[0], both[1])
    assert uniforms([-1, 2**63, 2**127 + 5], 2).shape == (3, 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_an_error(value):
    logits = torch.tensor([[0.0, 1.0], [0.0, value]])
    with pytest.raises(RunError, match="not finite"):
        sample_tokens(logits, torch.tensor([0.5, 0.5], dtype=torch.float64), 1.0, 1.0)
