"""Decode one batch: each distinct prompt is prefilled once, its cache repeated for the group, finished rows dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from ampo_registry import LogProbs, SamplingOptions, TokenIds
from torch import Tensor

from ampo_plugins.rollouts.transformers.token_sampling import sample_tokens, uniforms

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel

# Shrinking the cache copies it: done only when this share of the rows has finished.
DROP_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Row:
    """One response to sample: its prompt, its seed, and how many tokens it may have."""

    prompt: TokenIds
    seed: int
    limit: int


@dataclass(frozen=True, slots=True)
class Sampled:
    """What came out for a row; `stopped` is True iff the last token is a stop token."""

    token_ids: TokenIds
    logprobs: LogProbs
    stopped: bool


class _Batch:
    """The rows still being decoded: cache, attention mask [rows, prompt + response], positions, original index."""

    def __init__(self, cache: DynamicCache, mask: Tensor, position: Tensor, padded: bool) -> None:
        self.cache, self.mask, self.position, self.padded = cache, mask, position, padded
        self.index = torch.arange(mask.shape[0], device=mask.device)
        self.open = torch.ones_like(self.index, dtype=torch.bool)

    def select(self, rows: Tensor) -> None:
        """Keep only `rows` (positions in the current batch)."""
        self.cache.batch_select_indices(rows)
        self.mask, self.position = self.mask[rows], self.position[rows]
        self.index, self.open = self.index[rows], self.open[rows]


def _prefill(model: PreTrainedModel, rows: Sequence[Row], limit: int) -> tuple[_Batch, Tensor]:
    """Run the distinct prompts, left-padded, and spread the result over the rows: batch and logits [rows, vocab]."""
    from transformers import DynamicCache

    prompts = list(dict.fromkeys(row.prompt for row in rows))
    width = max(map(len, prompts))
    device = model.device
    # Id 0 pads: the mask hides it, so that any id of the vocabulary does.
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    mask = torch.arange(width, device=device) >= (width - lengths).unsqueeze(-1)
    padded = bool((lengths < width).any())
    cache = DynamicCache(config=model.config)
    logits = model(
        input_ids=ids,
        attention_mask=mask.long() if padded else None,
        position_ids=(mask.long().cumsum(-1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    place = {prompt: i for i, prompt in enumerate(prompts)}
    spread = torch.tensor([place[row.prompt] for row in rows], device=device)
    cache.batch_select_indices(spread)
    full_mask = torch.cat([mask[spread], mask.new_ones(len(rows), limit)], dim=-1).long()
    return _Batch(cache, full_mask, lengths[spread], padded), logits[spread]


def _forward(model: PreTrainedModel, batch: _Batch, tokens: Tensor, seen: int) -> Tensor:
    """Feed the last sampled token of each open row; logits [rows, vocabulary] for the next one."""
    logits: Tensor = model(
        input_ids=tokens.unsqueeze(-1),
        attention_mask=batch.mask[:, :seen] if batch.padded else None,
        position_ids=batch.position.unsqueeze(-1),
        past_key_values=batch.cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    batch.position = batch.position + 1
    return logits


@torch.inference_mode()
def decode(model: PreTrainedModel, rows: Sequence[Row], options: SamplingOptions) -> list[Sampled]:
    """Sample one response for each row, all rows at once, in the order of `rows`.

    A row ends with the first token of `options.stop_token_ids` (kept) or at its limit.
    """
    limit = max(row.limit for row in rows)
    device = model.device
    noise = uniforms([row.seed for row in rows], limit).to(device)
    tokens = torch.zeros(len(rows), limit, dtype=torch.int64, device=device)
    logprobs = torch.zeros(len(rows), limit, dtype=torch.float32, device=device)
    limits = torch.tensor([row.limit for row in rows], device=device)
    lengths = limits.clone()
    stopped = torch.zeros(len(rows), dtype=torch.bool, device=device)
    stops = torch.tensor(options.stop_token_ids, dtype=torch.int64, device=device)
    batch, logits = _prefill(model, rows, limit)
    width = batch.mask.shape[1] - limit
    for step in range(limit):
        drawn, drawn_logprobs = sample_tokens(logits, noise[batch.index, step], options.temperature, options.top_p)
        tokens[batch.index, step], logprobs[batch.index, step] = drawn, drawn_logprobs
        ended = batch.open & torch.isin(drawn, stops)
        lengths[batch.index[ended]], stopped[batch.index[ended]] = step + 1, True
        batch.open = batch.open & ~ended & (limits[batch.index] > step + 1)
        left = int(batch.open.sum())
        if left == 0:
            break
        if left <= (1 - DROP_SHARE) * len(drawn):
            kept = batch.open.nonzero().squeeze(-1)
            batch.select(kept)
            drawn = drawn[kept]
        logits = _forward(model, batch, drawn, width + step + 1)
    ids, values = tokens.int().cpu().numpy(), logprobs.cpu().numpy()
    ends = enumerate(zip(lengths.tolist(), stopped.tolist(), strict=True))
    return [Sampled(TokenIds(ids[i, :n]), LogProbs(values[i, :n]), stop) for i, (n, stop) in ends]
