"""Micro-batches under a token budget.

A micro-batch of padded rows costs rows × longest row; rows are sorted by length, so little of it is padding.
How sequences are packed never changes a loss: its weights come from the whole mini-batch (`objective.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenPair:
    """A prompt and a response in token ids; losses and scores are on the response."""

    prompt_token_ids: tuple[int, ...]
    response_token_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt_token_ids) + len(self.response_token_ids)


def microbatches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of `lengths` in micro-batches of at most `budget` tokens, padding included, longest rows first.

    Every index occurs once. Raises ValueError if a single length exceeds the budget: nothing is cut here.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    if order and lengths[order[0]] > budget:
        raise ValueError(f"a sequence of {lengths[order[0]]} tokens exceeds tokens_per_microbatch = {budget}")
    batches: list[list[int]] = []
    for index in order:
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def padding_tokens(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> int:
    """Tokens of `batches` that are padding."""
    return sum(len(batch) * max(lengths[i] for i in batch) - sum(lengths[i] for i in batch) for batch in batches)
