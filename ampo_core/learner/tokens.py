"""A sequence of token ids or log-probs as a tensor."""

from __future__ import annotations

import torch
from ampo_registry.tokens import LogProbs, TokenIds


def tensor_of(values: TokenIds | LogProbs, dtype: torch.dtype | None = None) -> torch.Tensor:
    """`values` as a tensor of its own, [n] int64 or float32."""
    return torch.tensor(list(values), dtype=dtype)
