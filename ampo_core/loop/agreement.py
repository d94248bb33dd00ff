"""Ranks decide alike: what plugins decided is compared before anything is done together that depends on it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from ampo_registry.errors import RunError
from ampo_registry.samples import Sample
from ampo_registry.types import Selection

from ampo_core.distributed.ranks import Ranks
from ampo_core.loop.groups import GuidedBatch, GuidedQuestion


def agree(ranks: Ranks | None, key: str, what: str, decided: Callable[[], Iterable[object]], step: int) -> None:
    """Raise RunError on every rank if `what` the component at `key` `decided` is not the same on all of them. A
    single rank is not asked."""
    if ranks is None or ranks.world_size == 1:
        return
    digest = hashlib.sha256()
    for part in decided():
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
    found = ranks.each(digest.digest())
    others = [str(rank) for rank, one in enumerate(found) if one != found[0]]
    if others:
        raise RunError(
            f"step {step}: {key}: {what} is not the same on all ranks (0 and {', '.join(others)} differ). A component "
            "decides alike everywhere: it must not use the rank, the clock, or random numbers of its own"
        )


def selected(selections: Sequence[Sequence[Selection]]) -> Iterator[object]:
    """Which answers were selected for each group."""
    for of_group in selections:
        yield [(one.guidance.teacher, one.guidance.text, one.score) for one in of_group]


def made(batch: GuidedBatch) -> Iterator[object]:
    """What an intervention made of the groups that fired."""
    for question in batch.questions:
        if question.triggered:
            yield [len(group.samples) for group in question.groups]
            yield from (part for sample in (*question.samples, *question.extra) for part in _sample(sample))
    yield from (part for sample in batch.extra for part in _sample(sample))


def advantages_of(questions: Sequence[GuidedQuestion]) -> Iterator[object]:
    """The advantages of each group."""
    for question in questions:
        for group in question.groups:
            for value in group.advantages:
                yield value.numpy().tobytes() if isinstance(value, torch.Tensor) else value


def _sample(sample: Sample) -> Iterator[object]:
    yield sample.question.uid, sample.segments, sample.reward
    yield bytes(sample.prompt_token_ids.buffer)
    yield bytes(sample.token_ids.buffer)
