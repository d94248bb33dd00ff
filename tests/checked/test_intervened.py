"""What an intervention gives is checked before it is used, and said in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ampo_registry import Guided, Intervened, PluginError, Sample, Selection
from ampo_registry.testing import example_group, example_guidance, example_question, example_step

from ampo_core.config.tree import GuidanceConfig
from ampo_core.loop.groups import GuidedBatch
from ampo_core.loop.guidance import Guide

GROUP = example_group((0.0, 1.0, 0.1))
ANSWER = Selection(example_guidance("A"), -0.5)


def intervene(result: Any, terms: tuple[str, ...] = ()) -> GuidedBatch:
    """A group that fired and one that did not, guided by an intervention that gives `result`."""

    class Gives:
        """Gives what it is told to."""

        def intervene(self, requests: Any, context: Any) -> Any:
            return result(requests[0]) if callable(result) else result

    config = GuidanceConfig.model_construct(teacher_reward="verified")
    parts: Any = (None, None, None, Gives(), None, None)
    guide = Guide(config, *parts, 0, dict.fromkeys(terms, False))
    guidance = {1: ((ANSWER.guidance,), [ANSWER])}
    return guide.intervene([GROUP, GROUP], guidance, [1], 4, example_step())


def one(samples: Any, **fields: Any) -> Any:
    """An intervention whose only group `samples` makes of the request."""
    return lambda request: Intervened((Guided((samples(request),), **fields),))


def changed(**fields: Any) -> Any:
    return one(lambda request: (replace(request.samples[0], **fields),))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "gave None; expected an Intervened"),
        ([Guided(())], r"gave list \[Guided.*; expected an Intervened"),
        (Intervened(()), "gave 0 Guided for 1 requests"),
        (
            one(lambda request: (request.answer(ANSWER, "off_polcy"),)),
            "did you mean 'off_policy'.* a term of: on_policy",
        ),
        (
            one(lambda request: (request.answer(ANSWER, "sft"),)),
            r"gave a sample for the term 'sft'; expected a term of: on_p",
        ),
        (
            lambda request: Intervened((Guided((), (request.answer(ANSWER),)),)),
            r"for the term 'off_policy'; .* a term of: none: objective\.auxiliary declares no term",
        ),
        (
            lambda request: Intervened((Guided(()),), (request.samples[0],)),
            r"for the term 'on_policy'; .* a term of: none: objective\.auxiliary declares no term",
        ),
        (changed(question=example_question(5)), "a sample of question question-5 in a group"),
        (changed(prompt_token_ids=()), "a sample of 0 prompt and 4 response tokens; expected one of each"),
        (changed(prompt_token_ids=[1] * 253), "253 prompt and 4 response tokens; .* at most 256 together"),
        (changed(reward=float("inf")), "a sample with the reward inf; expected a finite number"),
    ],
)
def test_what_cannot_be_trained_is_refused(result: Any, message: str) -> None:
    with pytest.raises(
        PluginError, match=rf"^intervention \(Gives\.intervene, .*/test_intervened\.py:\d+\): .*{message}"
    ):
        intervene(result)


def test_groups_of_any_size_and_samples_beside_them_are_taken() -> None:
    seen = []

    def split(request: Any) -> Intervened:
        seen.append(request)
        again = replace(request.samples[0], question=example_question(7))
        sft: Sample = request.answer(ANSWER, "sft")
        context = replace(again, segments=((None, len(again.token_ids)),))
        return Intervened((Guided((request.samples, request.samples[:1], ()), (sft,)),), (context,))

    first, second = (batch := intervene(split, ("sft",))).questions
    assert [len(group.samples) for group in first.groups] == [3]
    assert [len(group.samples) for group in second.groups] == [3, 1]
    assert (first.triggered, second.triggered) == (False, True)
    assert [sample.segments for sample in second.extra] == [(("sft", len(ANSWER.guidance.token_ids)),)]
    assert [sample.question.uid for sample in batch.extra] == ["question-7"]
    [request] = seen
    assert (request.position, request.selections, request.candidates) == (5, (ANSWER,), (ANSWER.guidance,))


def test_no_more_samples_are_put_in_than_rollouts_are_wrong() -> None:
    with pytest.raises(PluginError, match="with_wrong_replaced: 3 samples for 2 wrong rollouts"):
        intervene(one(lambda request: request.with_wrong_replaced([request.answer(ANSWER)] * 3)))
