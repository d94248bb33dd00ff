"""Attention over one packed row: sequences one after the other, no padding, and nothing passes between them.

transformers calls `packed_attention` in every layer. `Sequences` travels there as a keyword argument, so that no mask
of [tokens, tokens] is ever made. Where flash-attn is installed, transformers' own function takes the boundaries.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

import torch
from ampo_registry.errors import ConfigError
from torch.nn.functional import scaled_dot_product_attention

NAME = "ampo_packed"
HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Sequences:
    """Lengths of the sequences of a packed row, longest first, and their boundaries [sequences + 1] (int32)."""

    lengths: tuple[int, ...]
    boundaries: torch.Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Sequences:
        """The sequences of a row in which they stand in the order of `lengths`."""
        counts = torch.tensor([0, *lengths], dtype=torch.int32)
        return cls(tuple(lengths), counts.cumsum(0, dtype=torch.int32).to(device))

    @property
    def runs(self) -> list[tuple[int, int]]:
        """(how many, length) of neighbours of equal length: one attention call each."""
        return [(len(list(run)), length) for length, run in groupby(self.lengths)]

    def arguments(self) -> dict[str, Any]:
        """What the model hands down to its attention: ours, and transformers' names for flash-attn."""
        longest = max(self.lengths)
        return {
            "sequences": self,
            "cu_seq_lens_q": self.boundaries,
            "cu_seq_lens_k": self.boundaries,
            "max_length_q": longest,
            "max_length_k": longest,
        }


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    sequences: Sequences | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sequence: [1, heads, tokens, width] -> [1, tokens, heads, width].

    Raises ConfigError for a model that asks for more than that.
    """
    unknown = sorted(name for name in ("softcap", "s_aux", "position_bias") if options.get(name) is not None)
    if sequences is None or unknown or attention_mask is not None or not getattr(module, "is_causal", True):
        reason = ", ".join(unknown) or "it is not plain causal attention, or boundaries of sequences do not reach it"
        raise ConfigError(f"model.path: the attention of {type(module).__name__} cannot be packed: {reason}")
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    attend = _varlen if _varlen_serves(q, v) else _by_length
    return attend(q, k, v, sequences, scaling, sliding_window)[None], None


def _by_length(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    sequences: Sequences,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """One SDPA call for each length, on views: [tokens, heads, width] -> the same. Exact on every device.

    Neighbouring lengths padded to one call were tried: the copies cost more than the calls that they save.
    """
    runs = sequences.runs
    sizes = [count * length for count, length in runs]
    outputs = []
    for (count, length), *parts in zip(runs, *(torch.split(row, sizes) for row in (query, key, value)), strict=True):
        q, k, v = (part.unflatten(0, (count, length)).transpose(1, 2) for part in parts)
        mask = _window_mask(length, window, query.device) if window is not None and window < length else None
        found = scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
        outputs.append(found.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs) if len(outputs) > 1 else outputs[0]


def _window_mask(length: int, window: int, device: torch.device) -> torch.Tensor:
    """True where a token sees itself and the `window` - 1 before it: [length, length]."""
    positions = torch.arange(length, device=device)
    distance = positions[:, None] - positions
    return (distance >= 0) & (distance < window)


@cache
def _varlen_options() -> frozenset[str]:
    """Keyword arguments of PyTorch's varlen attention; empty where this build has none that fits."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return frozenset()
    names = frozenset(inspect.signature(varlen_attn).parameters)
    return names if {"window_size", "scale"} <= names else frozenset()


def _varlen_serves(query: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether PyTorch's flash kernel takes these: half precision, one width that it knows, Ampere or newer."""
    if not query.is_cuda or query.dtype not in HALF or not _varlen_options():
        return False
    width = query.shape[-1]
    fits = width == value.shape[-1] and width % 8 == 0 and width <= 256
    return fits and torch.cuda.get_device_capability(query.device) >= (8, 0)


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    sequences: Sequences,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """All sequences in one call of PyTorch's flash kernel: [tokens, heads, width] -> the same."""
    from torch.nn.attention.varlen import varlen_attn

    groups = query.shape[1] // key.shape[1]
    options: dict[str, Any] = {}
    if groups > 1 and "enable_gqa" in _varlen_options():
        options["enable_gqa"] = True
    elif groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    bounds, longest = sequences.boundaries, max(sequences.lengths)
    left = -1 if window is None else window - 1
    found = varlen_attn(
        query, key, value, bounds, bounds, longest, longest, scale=scaling, window_size=(left, 0), **options
    )
    assert isinstance(found, torch.Tensor)  # a pair only if it is asked for more
    return found


def no_mask(*_: Any, **__: Any) -> None:
    """Boundaries travel with `Sequences`: transformers builds no mask."""


def use_packed_attention(model: Any, path: str) -> None:
    """Let `model` attend over packed rows. Raises ConfigError if its architecture cannot, or would leak."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

    for reason in _obstacles(model):
        raise ConfigError(f"model.path: sequences of {path} cannot be packed: {reason}")
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, no_mask)
    name = NAME
    if torch.cuda.is_available() and model.dtype in HALF:
        installed = {"flash_attention_3": is_flash_attn_3_available, "flash_attention_2": is_flash_attn_2_available}
        name = next((flash for flash, available in installed.items() if available()), NAME)
    model.set_attn_implementation(name)


def _obstacles(model: Any) -> list[str]:
    """Why rows of several sequences would be computed wrongly; empty for a plain decoder."""
    config = model.config
    found = []
    if getattr(model, "_is_stateful", False):
        found.append("it keeps a state besides attention")
    if not getattr(model, "_supports_attention_backend", False):
        found.append("it does not take attention functions from outside")
    layers = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if layers:
        found.append(f"layers of type {', '.join(sorted(layers))}")
    if getattr(config, "attn_logit_softcapping", None) is not None or getattr(config, "alibi", False):
        found.append("attn_logit_softcapping or alibi in its config")
    if any(name.endswith(".sinks") for name, _ in model.named_parameters()):
        found.append("attention sinks")
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {part.get("rope_type") for part in (rope, *rope.values()) if isinstance(part, dict)}
    if kinds & {"dynamic", "longrope"}:
        found.append("rotary embeddings that depend on the longest sequence (rope_type dynamic or longrope)")
    return found
