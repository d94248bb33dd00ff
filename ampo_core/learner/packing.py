"""Micro-batches under a token budget.

The sequences of a micro-batch are laid one after the other in one row (`policy.py`), so that nothing is padded and a
micro-batch costs the sum of its lengths. How sequences are packed never changes a loss: its weights come from the
whole mini-batch (`objective.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from ampo_registry.tokens import TokenIds


@dataclass(frozen=True, slots=True)
class TokenPair:
    """A prompt and a response in token ids; losses and scores are on the response."""

    prompt_token_ids: TokenIds
    response_token_ids: TokenIds

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt_token_ids", TokenIds.of(self.prompt_token_ids))
        object.__setattr__(self, "response_token_ids", TokenIds.of(self.response_token_ids))

    def __len__(self) -> int:
        return len(self.prompt_token_ids) + len(self.response_token_ids)

    @property
    def key(self) -> tuple[bytes, bytes]:
        """The pair as something that is hashed at once, whatever its length."""
        return bytes(self.prompt_token_ids.buffer), bytes(self.response_token_ids.buffer)


def microbatches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of `lengths` in micro-batches whose lengths sum up to at most `budget`: few of them, and even.

    Every index occurs once, and equal arguments give equal results. There are at most 11/9 of the fewest possible,
    plus one (first fit by falling length). Where it costs no further micro-batch, each holds neighbours in length,
    which attention computes together. Raises ValueError if a single length exceeds the budget: nothing is cut here.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    if not order:
        return []
    if lengths[order[0]] > budget:
        raise ValueError(f"a sequence of {lengths[order[0]]} tokens exceeds tokens_per_microbatch = {budget}")
    neighbours, anywhere = _fill(lengths, order, budget, look_back=1), _fill(lengths, order, budget)
    fill = partial(_fill, look_back=1) if len(neighbours) <= len(anywhere) else _fill
    best = min(neighbours, anywhere, key=len)
    low, high = max(lengths[order[0]], -(-sum(lengths) // len(best))), budget
    while low < high:  # the smallest cap that needs no more micro-batches makes them even
        cap = (low + high) // 2
        found = fill(lengths, order, cap)
        if len(found) <= len(best):
            best, high = found, cap
        else:
            low = cap + 1
    return best


def _fill(lengths: Sequence[int], order: Sequence[int], cap: int, look_back: int | None = None) -> list[list[int]]:
    """Put each index of `order` where it fits first, among the last `look_back` micro-batches (all if None)."""
    batches: list[list[int]] = []
    free: list[int] = []
    for index in order:
        first = 0 if look_back is None else max(0, len(batches) - look_back)
        place = next((i for i in range(first, len(batches)) if free[i] >= lengths[index]), len(batches))
        if place == len(batches):
            batches.append([])
            free.append(cap)
        batches[place].append(index)
        free[place] -= lengths[index]
    return batches
