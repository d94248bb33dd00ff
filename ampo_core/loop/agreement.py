"""Ranks decide alike: what plugins decided is compared before anything is done together that depends on it.

Decisions are compared exactly. Numbers that come out of a decision are compared within `TOLERANCE`: machines whose
processors round differently may train together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from ampo_registry.errors import RunError
from ampo_registry.samples import Sample
from ampo_registry.types import Selection

from ampo_core.distributed.ranks import Ranks
from ampo_core.loop.groups import GuidedBatch, GuidedQuestion

TOLERANCE = 1e-5
"""Relative, and below 1 absolute."""


def agree(ranks: Ranks | None, key: str, what: str, decided: Callable[[], Iterable[object]], step: int) -> None:
    """Raise RunError on every rank if `what` the component at `key` `decided` is not the same on all of them. A
    single rank is not asked. Tensors among the parts are numbers, compared within the tolerance."""
    if ranks is None or ranks.world_size == 1:
        return
    decision, numbers = hashlib.sha256(), [torch.zeros(0, dtype=torch.float64)]
    for part in decided():
        if isinstance(part, torch.Tensor):
            numbers.append(part.double().flatten())
        else:
            decision.update(part if isinstance(part, bytes) else repr(part).encode())
    values = torch.cat(numbers)
    bits = hashlib.sha256(values.numpy().tobytes()).digest()
    found = ranks.each((decision.digest(), len(values), bits))
    others = [rank for rank, one in enumerate(found) if one[:2] != found[0][:2]]
    if not others and any(one != found[0] for one in found):  # only then do the numbers themselves travel
        each = ranks.each(values)
        others = [r for r, one in enumerate(each) if not torch.allclose(one, each[0], rtol=TOLERANCE, atol=TOLERANCE)]
    if others:
        raise RunError(
            f"step {step}: {key}: {what} is not the same on all ranks (0 and {', '.join(map(str, others))} differ). A "
            "component decides alike everywhere: it must not use the rank, the clock, or random numbers of its own"
        )


def selected(selections: Sequence[Sequence[Selection]]) -> Iterator[object]:
    """Which answers were selected for each group, and their scores."""
    for of_group in selections:
        yield [(one.guidance.teacher, one.guidance.text, one.score is None) for one in of_group]
        yield torch.tensor([one.score or 0.0 for one in of_group], dtype=torch.float64)


def made(batch: GuidedBatch) -> Iterator[object]:
    """What an intervention made of the groups that fired."""
    for question in batch.questions:
        if question.triggered:
            yield [len(group.samples) for group in question.groups]
            yield from (part for sample in (*question.samples, *question.extra) for part in _sample(sample))
    yield from (part for sample in batch.extra for part in _sample(sample))


def advantages_of(questions: Sequence[GuidedQuestion]) -> Iterator[object]:
    """The advantages of each group, and which are 0: that decides what is forwarded."""
    for question in questions:
        for group in question.groups:
            for value in group.advantages:
                numbers = torch.as_tensor(value, dtype=torch.float64)
                yield tuple(numbers.shape), bool(numbers.any())
                yield numbers


def _sample(sample: Sample) -> Iterator[object]:
    yield sample.question.uid, sample.segments, sample.reward
    yield bytes(sample.prompt_token_ids.buffer)
    yield bytes(sample.token_ids.buffer)
