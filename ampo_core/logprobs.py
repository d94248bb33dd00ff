"""Log-probs and entropies of chosen tokens from hidden states, without ever holding all logits.

Tokens go through the LM head in chunks; a chunk's logits are recomputed in backward. Temperature divides the
logits, so the numbers are those of the distribution that was sampled from (golden: entropy.json).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint

CHUNK_ELEMENTS = 2**25
"""Logits held at once: 128 MiB in fp32."""

Head = Callable[[torch.Tensor], torch.Tensor]


def token_logprobs(
    hidden: torch.Tensor, targets: torch.Tensor, head: Head, vocabulary: int, *, temperature: float, entropy: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-prob of each target token and, if asked for, the entropy of its distribution, in nats.

    `hidden` [tokens, width] predicts `targets` [tokens]; `head` maps [n, width] to logits [n, vocabulary].
    Returns two [tokens] tensors, float32 or better; the second is empty without `entropy`.
    """
    size = max(1, CHUNK_ELEMENTS // vocabulary)
    if len(targets) <= size:
        return _chunk(hidden, targets, head, temperature, entropy)
    parts = [
        checkpoint(_chunk, states, labels, head, temperature, entropy, use_reentrant=False)
        for states, labels in zip(torch.split(hidden, size), torch.split(targets, size), strict=True)
    ]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _chunk(
    hidden: torch.Tensor, targets: torch.Tensor, head: Head, temperature: float, entropy: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    return logprobs_from_logits(head(hidden), targets, temperature=temperature, entropy=entropy)


def logprobs_from_logits(
    logits: torch.Tensor, targets: torch.Tensor, *, temperature: float, entropy: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """`logits` [tokens, vocabulary], `targets` [tokens] -> log-probs [tokens] and entropies [tokens] (or [0])."""
    scaled = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    normaliser = scaled.logsumexp(dim=-1)
    logprobs = scaled.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - normaliser
    if not entropy:
        return logprobs, logprobs.new_empty(0)
    probabilities = (scaled - normaliser.unsqueeze(-1)).exp()
    return logprobs, normaliser - (probabilities * scaled).sum(dim=-1)
