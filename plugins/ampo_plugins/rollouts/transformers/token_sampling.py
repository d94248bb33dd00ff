"""One token for each row of logits, by inverse CDF: one uniform number a token, drawn ahead from the row's own seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import torch
from ampo_registry import RunError
from torch import Tensor


def uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """[seeds, count] float64 in [0, 1): row i is a Philox stream that only `seeds[i]` decides."""
    rows = [numpy.random.Generator(numpy.random.Philox(key=seed % 2**128)).random(count) for seed in seeds]
    return torch.from_numpy(numpy.stack(rows))


def nucleus(logprobs: Tensor, top_p: float) -> Tensor:
    """Keep each row's most probable tokens up to and with the one that reaches `top_p`, and renormalise.

    `logprobs` [rows, vocabulary] -> the same shape; what is left out is -inf. The most probable token always stays.
    """
    ordered, order = logprobs.sort(dim=-1, descending=True, stable=True)
    mass_before = ordered.exp().cumsum(dim=-1) - ordered.exp()
    dropped = torch.zeros_like(logprobs, dtype=torch.bool).scatter(-1, order, mass_before >= top_p)
    return logprobs.masked_fill(dropped, float("-inf")).log_softmax(dim=-1)


def sample_tokens(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """`logits` [rows, vocabulary], `uniform` [rows] float64 -> token ids [rows] int64 and log-probs [rows] float32.

    The log-probs are those of the distribution that was sampled from: after temperature and after top_p, as vLLM's
    `processed_logprobs` are. Temperature 0 takes the most probable token, the first of equals, with its log-prob at
    temperature 1 before top_p. The CDF is summed in float64, so that rare tokens of a large vocabulary keep their
    share. Raises RunError if logits are nan or infinite.
    """
    logprobs = (logits.float() / (temperature or 1.0)).log_softmax(dim=-1)
    if top_p < 1.0 and temperature > 0.0:
        logprobs = nucleus(logprobs, top_p)
    cdf = logprobs.exp().cumsum(dim=-1, dtype=torch.float64)
    total = cdf[:, -1]
    if not bool(torch.isfinite(total).all()):
        raise RunError(
            "rollout transformers: the model's logits are not finite; its weights have diverged or are broken"
        )
    if temperature == 0.0:
        best = logprobs.argmax(dim=-1)
        return best, logprobs.gather(-1, best.unsqueeze(-1)).squeeze(-1)
    # Below the total even after rounding, or the search could end on a token of probability 0.
    point = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    tokens = torch.searchsorted(cdf, point.unsqueeze(-1), right=True)
    return tokens.squeeze(-1), logprobs.gather(-1, tokens).squeeze(-1)
