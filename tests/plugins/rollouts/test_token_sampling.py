"""Inverse-CDF sampling against the distributions it claims."""

import numpy
import pytest
import torch
from ampo_plugins.rollouts.transformers.token_sampling import WHOLE, invert, nucleus, sample_tokens, uniforms
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


def test_a_logit_that_is_not_finite_is_found_in_any_place_of_a_large_vocabulary():
    logits = torch.zeros(30, 20_000)
    logits[29, 19_999] = float("nan")
    for temperature, top_p in ((1.0, 1.0), (1.0, 0.9), (0.0, 1.0)):
        with pytest.raises(RunError, match="not finite"):
            sample_tokens(logits, torch.full((30,), 0.5, dtype=torch.float64), temperature, top_p)


def running_sum(logits, uniform):
    """The plain rule: the running sum over the whole row in float64, and the point of it that is searched."""
    cdf = logits.log_softmax(-1).exp().numpy().astype(numpy.float64).cumsum(axis=-1)
    total = cdf[:, -1]
    point = numpy.minimum(uniform.numpy() * total, numpy.nextafter(total, 0.0))
    tokens = [int(numpy.searchsorted(row, at, side="right")) for row, at in zip(cdf, point, strict=True)]
    return torch.tensor(tokens), cdf, point


def random_rows(rows, width, scale):
    logits = scale * torch.randn(rows, width, generator=torch.Generator().manual_seed(width))
    return logits, uniforms([width], rows)[0]


@pytest.mark.parametrize("width", [2, 64, 1000, WHOLE])
def test_a_small_vocabulary_is_summed_as_a_whole(width):
    logits, uniform = random_rows(400, width, 2.0)
    tokens, logprobs = sample_tokens(logits, uniform, 1.0, 1.0)
    assert torch.equal(tokens, running_sum(logits, uniform)[0])
    assert torch.equal(logprobs, logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1))


@pytest.mark.parametrize("scale", [0.01, 1.0, 4.0])
@pytest.mark.parametrize(("rows", "width"), [(600, WHOLE + 1), (400, 5000), (40, 151_936)])
def test_a_large_vocabulary_gives_the_token_of_the_running_sum_but_for_ties_at_rounding(rows, width, scale):
    logits, uniform = random_rows(rows, width, scale)
    tokens, logprobs = sample_tokens(logits, uniform, 1.0, 1.0)
    plain, cdf, point = running_sum(logits, uniform)
    differ = (tokens != plain).nonzero().squeeze(-1).tolist()
    assert len(differ) <= 1
    for row in differ:
        between = cdf[row, min(int(tokens[row]), int(plain[row]))]
        assert abs(between - point[row]) < 1e-7
    assert torch.equal(logprobs, logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1))


def test_rare_tokens_of_a_large_vocabulary_keep_their_share():
    # float32 cannot tell the sum of this block from its first weight.
    weights = torch.zeros(1152)
    weights[384:512] = 1e-9
    weights[384] = 1.0
    uniform = 1.0 - torch.arange(1, 2001, dtype=torch.float64) * 1e-10
    counts = torch.bincount(invert(weights.expand(2000, -1), uniform).squeeze(-1), minlength=1152)
    assert counts.sum() == counts[384:512].sum()
    assert ((counts[385:512] - 10).abs() <= 1).all()


def test_rounding_at_the_border_of_two_blocks_draws_no_token_without_probability():
    rare = torch.arange(1, 200, dtype=torch.float32) * 1e-9
    weights = torch.zeros(199, 1152)
    weights[:, 5] = 1.0
    weights[:, 140] = rare  # the second block begins with tokens of probability 0
    tokens = invert(weights, 1.0 / (1.0 + rare.double())).squeeze(-1)
    assert set(tokens.tolist()) <= {5, 140}


def test_samples_of_a_large_vocabulary_follow_the_softmax():
    logits, _ = random_rows(1, 2000, 1.0)
    # One number of each 20,000th: counts are expectations but for rounding at both ends.
    uniform = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    for temperature in (0.6, 1.0, 1.7):
        tokens, _ = sample_tokens(logits.expand(20_000, -1), uniform, temperature, 1.0)
        counts = torch.bincount(tokens, minlength=2000)
        assert ((counts - 20_000 * (logits[0].double() / temperature).softmax(-1)).abs() <= 1.001).all()


@pytest.mark.parametrize("possible", [[0], [127, 128], [3, 1030], [1099]])
def test_a_token_without_probability_is_never_drawn_from_a_large_vocabulary(possible):
    logits = torch.full((4, 1100), float("-inf"))
    logits[:, possible] = 0.0
    uniform = torch.tensor([0.0, 0.25, 1 - 2**-53, 1.0], dtype=torch.float64)
    tokens, _ = sample_tokens(logits, uniform, 1.0, 1.0)
    assert tokens.tolist() == [possible[0], possible[0], possible[-1], possible[-1]]


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.9), (0.0, 1.0)])
def test_a_rows_token_depends_on_no_other_row(temperature, top_p):
    logits, uniform = random_rows(31, 20_001, 2.0)
    together = sample_tokens(logits, uniform, temperature, top_p)
    for row in range(31):
        alone = sample_tokens(logits[row : row + 1], uniform[row : row + 1], temperature, top_p)
        for found, expected in zip(alone, together, strict=True):
            assert torch.equal(found, expected[row : row + 1])


def test_top_p_and_temperature_0_hold_for_a_large_vocabulary():
    logits, uniform = random_rows(40, 20_000, 3.0)
    tokens, logprobs = sample_tokens(logits, uniform, 1.0, 0.3)
    kept = nucleus(logits.log_softmax(-1), 0.3)
    assert torch.equal(logprobs, kept.gather(-1, tokens.unsqueeze(-1)).squeeze(-1))
    assert torch.isfinite(logprobs).all()
    assert torch.equal(tokens, running_sum(kept, uniform)[0])
    tokens, logprobs = sample_tokens(logits, uniform, 0.0, 1.0)
    assert torch.equal(tokens, logits.argmax(-1))
    assert torch.equal(logprobs, logits.log_softmax(-1).amax(-1))
