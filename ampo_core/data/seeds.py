"""Seeds that depend only on where in the run something happens: the same on every machine, rank and resume."""

from __future__ import annotations

import hashlib
from random import Random


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from `parts`; other parts give an unrelated seed."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big") >> 1


def sample_seed(run_seed: int, step: int, position: int, sample: int) -> int:
    """Seed of the `sample`-th response to the question at `position` in the batch of `step`."""
    return derive_seed("sample", run_seed, step, position, sample)


def request_rng(run_seed: int, step: int, position: int) -> Random:
    """The generator that the selection for the group at `position` in the batch of `step` draws from."""
    return Random(derive_seed("request", run_seed, step, position))
