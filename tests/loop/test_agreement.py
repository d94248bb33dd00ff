"""What plugins decide is the same on all ranks, or the run ends with the name of the decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from ampo_registry import RunError, Sample, Selection
from ampo_registry.testing import example_group, example_guidance

from ampo_core.loop.agreement import advantages_of, agree, made, selected
from ampo_core.loop.groups import AugmentedGroup, GuidedBatch, GuidedQuestion

GROUP = example_group((0.0, 1.0))
SAMPLES = tuple(Sample.sampled(GROUP.question, *pair) for pair in zip(GROUP.rollouts, GROUP.grades, strict=True))
ANSWER = Selection(example_guidance("A"), 0.5)


class Two:
    """Two ranks, of which the other one's digest is that of `other`."""

    world_size = 2

    def __init__(self, other: Callable[[], Any] | None = None) -> None:
        self.other, self.found = other, list[bytes]()

    def each(self, value: bytes) -> list[bytes]:
        self.found.append(value)
        return [value, self.found[0]] if self.other is None else [value, Two.digest(self.other)]

    @staticmethod
    def digest(decided: Callable[[], Any]) -> bytes:
        one: Any = Two()
        agree(one, "", "", decided, 1)
        return one.found[0]


def guided(samples: tuple[Sample, ...], advantages: Any = (0.5, -0.5)) -> GuidedQuestion:
    return GuidedQuestion(GROUP.question, (AugmentedGroup(samples, advantages),), triggered=True)


DECISIONS = [
    (lambda: [0, 2], lambda: [0, 1]),
    (lambda: selected([[ANSWER]]), lambda: selected([[]])),
    (lambda: selected([[ANSWER]]), lambda: selected([[replace(ANSWER, score=0.25)]])),
    (lambda: made(GuidedBatch((guided(SAMPLES),))), lambda: made(GuidedBatch((guided(SAMPLES[:1]),)))),
    (
        lambda: made(GuidedBatch((guided(SAMPLES),))),
        lambda: made(GuidedBatch((guided((SAMPLES[0], replace(SAMPLES[1], reward=0.5))),))),
    ),
    (
        lambda: made(GuidedBatch((guided(SAMPLES),))),
        lambda: made(
            GuidedBatch(
                (guided((SAMPLES[0], replace(SAMPLES[1], token_ids=tuple(i + 1 for i in SAMPLES[1].token_ids)))),)
            )
        ),
    ),
    (lambda: advantages_of([guided(SAMPLES)]), lambda: advantages_of([guided(SAMPLES, (0.5, -0.25))])),
    (
        lambda: advantages_of([guided(SAMPLES, (torch.zeros(4),))]),
        lambda: advantages_of([guided(SAMPLES, (torch.ones(4),))]),
    ),
]


@pytest.mark.parametrize(("one", "other"), DECISIONS, ids=[str(i) for i in range(len(DECISIONS))])
def test_a_decision_that_differs_ends_the_run_with_its_name(one: Any, other: Any) -> None:
    same: Any = Two(one)
    agree(same, "guidance.selector", "what it selects", one, 3)
    differing: Any = Two(other)
    with pytest.raises(RunError, match=r"step 3: guidance\.selector: what it selects is not the same .*0 and 1 differ"):
        agree(differing, "guidance.selector", "what it selects", one, 3)


def test_a_single_rank_is_not_asked() -> None:
    agree(None, "", "", lambda: pytest.fail("asked"), 1)
