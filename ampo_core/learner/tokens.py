"""Sequences of token ids or log-probs as one tensor."""

from __future__ import annotations

import torch
from ampo_registry.tokens import LogProbs, TokenIds


def tensor_of(*values: TokenIds | LogProbs) -> torch.Tensor:
    """The numbers of `values`, all of one type, end to end: [n] int32 or float32 on the CPU, a copy of its own."""
    dtype = torch.float32 if isinstance(values[0], LogProbs) else torch.int32
    joined = bytearray().join(part.buffer for part in values)
    # torch refuses an empty buffer
    return torch.frombuffer(joined, dtype=dtype) if joined else torch.empty(0, dtype=dtype)
