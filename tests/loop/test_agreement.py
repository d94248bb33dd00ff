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
    """Two ranks, of which the other one decides `other`."""

    world_size = 2

    def __init__(self, other: Callable[[], Any]) -> None:
        self.other, self.asked = other, 0

    def each(self, value: Any) -> list[Any]:
        self.asked += 1
        return [value, Noted.of(self.other, self.asked)]


class Noted:
    """A rank that notes what it is to tell the others, which say the same until they have been asked `calls` times."""

    world_size = 2

    def __init__(self, calls: int) -> None:
        self.calls, self.told = calls, list[Any]()

    def each(self, value: Any) -> list[Any]:
        self.told.append(value)
        if len(self.told) == self.calls:
            return [value, value]
        return [value, (*value[:2], b"others")]

    @classmethod
    def of(cls, decided: Callable[[], Any], calls: int) -> Any:
        one: Any = cls(calls)
        agree(one, "", "", decided, 1)
        return one.told[-1]


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


CLOSE = [
    (lambda: selected([[ANSWER]]), lambda: selected([[replace(ANSWER, score=0.5 + 1e-9)]])),
    (lambda: advantages_of([guided(SAMPLES)]), lambda: advantages_of([guided(SAMPLES, (0.5 * (1 + 1e-6), -0.5))])),
    (
        lambda: advantages_of([guided(SAMPLES, (torch.full((4,), 3.0),))]),
        lambda: advantages_of([guided(SAMPLES, (torch.full((4,), 3.0 - 1e-6, dtype=torch.float64),))]),
    ),
]


@pytest.mark.parametrize(("one", "other"), CLOSE, ids=["score", "advantages", "of-tokens"])
def test_numbers_that_processors_round_differently_are_alike(one: Any, other: Any) -> None:
    ranks: Any = Two(other)
    agree(ranks, "objective.advantage", "what it says of samples", one, 3)
    assert ranks.asked == 2


def test_an_advantage_that_is_0_on_one_rank_alone_is_a_decision() -> None:
    ranks: Any = Two(lambda: advantages_of([guided(SAMPLES, (1e-9, 0.0))]))
    with pytest.raises(RunError, match="differ"):
        agree(ranks, "objective.advantage", "what", lambda: advantages_of([guided(SAMPLES, (0.0, 0.0))]), 3)


def test_a_single_rank_is_not_asked() -> None:
    agree(None, "", "", lambda: pytest.fail("asked"), 1)
