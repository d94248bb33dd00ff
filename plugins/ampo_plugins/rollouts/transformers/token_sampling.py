"""One token for each row of logits, by inverse CDF: one uniform number a token, drawn ahead from the row's own seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import torch
from ampo_registry import RunError
from torch import Tensor

# A row of more tokens is searched block by block: a running sum over all of it takes longer than its softmax.
WHOLE = 1024
BLOCK = 128
# Logits that one core of a CPU takes at once, so that what is made of them stays in its cache.
CACHED = 2**18


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


def _search(weights: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where the running sum of `weights` [rows, n] first exceeds `share` [rows, 1] of it, that point, and the sums."""
    cdf = weights.cumsum(dim=-1, dtype=torch.float64)
    total = cdf[:, -1:]
    # Below the total even after rounding, or the search could end on a token of probability 0.
    point = torch.minimum(share * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cdf, point, right=True), point, cdf


def invert(weights: Tensor, uniform: Tensor) -> Tensor:
    """The tokens [rows, 1] at `uniform` [rows] float64 of the running sums of `weights` [rows, vocabulary] >= 0.

    Running sums are float64, so that rare tokens of a large vocabulary keep their share. Past `WHOLE` tokens one finds
    a block by the sums of the blocks, and one of that block alone the token: the same token but for rounding.
    """
    width = weights.shape[-1]
    if width <= WHOLE:
        return _search(weights, uniform.unsqueeze(-1))[0]
    if width % BLOCK:
        weights = torch.nn.functional.pad(weights, (0, -width % BLOCK))
    blocks = weights.reshape(len(weights), -1, BLOCK)
    sums = blocks.sum(dim=-1)
    block, point, cdf = _search(sums, uniform.unsqueeze(-1))
    mass = sums.gather(-1, block).double()
    # A share, not a point: the sums of blocks are float32, and the block's last tokens could fall behind its end.
    share = ((point - cdf.gather(-1, block) + mass) / mass).clamp(min=0.0)
    inside = blocks.take_along_dim(block.unsqueeze(-1), dim=1).squeeze(1)
    return block * BLOCK + _search(inside, share)[0]


def _sample_rows(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """`sample_tokens` of rows that are taken at once."""
    scaled = logits.float() if temperature in (0.0, 1.0) else logits.float() / temperature
    logprobs = scaled.log_softmax(dim=-1)
    # One logit that is nan or +inf makes the whole row nan.
    if bool(logprobs[:, 0].isnan().any()):
        raise RunError(
            "rollout transformers: the model's logits are not finite; its weights have diverged or are broken"
        )
    if temperature == 0.0:
        tokens = logprobs.argmax(dim=-1, keepdim=True)
    else:
        logprobs = nucleus(logprobs, top_p) if top_p < 1.0 else logprobs
        tokens = invert(logprobs.exp(), uniform)
    return tokens.squeeze(-1), logprobs.gather(-1, tokens).squeeze(-1)


def sample_tokens(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """`logits` [rows, vocabulary], `uniform` [rows] float64 -> token ids [rows] int64 and log-probs [rows] float32.

    The log-probs are those of the distribution that was sampled from: after temperature and after top_p, as vLLM's
    `processed_logprobs` are. Temperature 0 takes the most probable token, the first of equals, with its log-prob at
    temperature 1 before top_p. A row's token depends on no other row. Raises RunError if logits are nan or infinite.
    """
    at_once = max(1, CACHED * torch.get_num_threads() // logits.shape[-1])
    if logits.is_cuda or len(logits) <= at_once:
        return _sample_rows(logits, uniform, temperature, top_p)
    parts = zip(torch.split(logits, at_once), torch.split(uniform, at_once), strict=True)
    tokens, logprobs = zip(*(_sample_rows(*part, temperature, top_p) for part in parts), strict=True)
    return torch.cat(tokens), torch.cat(logprobs)
