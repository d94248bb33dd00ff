"""Judges for hooks and for losses: who is asked what, in which order, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from ampo_registry import (
    ON_POLICY,
    BuildContext,
    JudgeRequest,
    LogProbs,
    LossSpec,
    LossView,
    PluginError,
    TokenIds,
)
from ampo_registry.step import StepContext

from ampo_core.config.objective import ObjectiveConfig
from ampo_core.distributed.ranks import join_ranks
from ampo_core.loop.judges import Judges
from ampo_core.loop.objective import Objective, ObjectiveParts
from ampo_core.loop.sequences import TrainSequence
from tests.loop.objectives import plugins, run, sequence


class Counting:
    """The log-prob of a token is its place in prompt and response, below 0; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[JudgeRequest], float]] = []
        self.events: list[str] = []

    def logprobs(self, requests: Sequence[JudgeRequest], temperature: float) -> list[LogProbs]:
        self.asked.append((list(requests), temperature))
        self.events.append("asked")
        return [
            LogProbs(-float(len(request.prompt_token_ids) + i) for i in range(len(request.token_ids)))
            for request in requests
        ]

    def sleep(self) -> None:
        self.events.append("asleep")


class FakeLearner:
    """The learner's part of one rank: the policy's log-probs are -1, the start model's -2."""

    def __init__(self, reference: bool = True) -> None:
        self.ranks, self.has_reference = join_ranks(), reference
        self.asked: list[tuple[int, float, bool]] = []

    def logprobs(self, pairs: Any, *, temperature: float, reference: bool = False) -> list[torch.Tensor]:
        self.asked.append((len(pairs), temperature, reference))
        return [torch.full((len(pair.response_token_ids),), -2.0 if reference else -1.0) for pair in pairs]


def judges_of(judge: Any = None, *, reference: bool = True, declared: Sequence[str] = ("other", "idle")) -> Judges:
    learner: Any = FakeLearner(reference)
    built = {} if judge is None else {"other": judge}
    return Judges(learner, built, declared=declared, temperature=0.7, most=12)


def request(prompt: int, tokens: int) -> JudgeRequest:
    return JudgeRequest(TokenIds(range(prompt)), TokenIds(range(tokens)))


def test_answers_come_in_the_order_of_the_requests_and_the_judge_gets_the_longest_first() -> None:
    judge = Counting()
    lengths = [(1, 2), (5, 4), (2, 1), (3, 9), (1, 2), (4, 4)]
    found = judges_of(judge).judge("other").logprobs([request(*length) for length in lengths])
    assert [list(one) for one in found] == [[-float(p + i) for i in range(n)] for p, n in lengths]
    [(asked, temperature)] = judge.asked
    assert [len(one) for one in asked] == [12, 9, 8, 3, 3, 3]
    assert temperature == 0.7
    judges_of(judge).judge("other").logprobs([request(1, 1)], temperature=1.0)
    assert judge.asked[-1][1] == 1.0


def test_a_loss_too_asks_the_longest_first() -> None:
    judge = Counting()
    sequences = [sequence(length, 0, 1.0, off_policy=False) for length in (2, 5, 3)]
    filled = judges_of(judge).fill_in(sequences, "other", [0, 1, 2], [ON_POLICY])
    ((asked, _),) = judge.asked
    assert [len(request.token_ids) for request in asked] == [5, 3, 2]
    assert [len(s.judged["other"]) for s in filled] == [2, 5, 3]


def test_nothing_asked_for_asks_no_judge() -> None:
    judge = Counting()
    assert judges_of(judge).judge("other").logprobs([]) == []
    assert judge.asked == []


def test_start_and_policy_are_the_learners_own() -> None:
    judges = judges_of()
    assert [list(one) for one in judges.judge("start").logprobs([request(1, 2)])] == [[-2.0, -2.0]]
    assert [list(one) for one in judges.judge("policy").logprobs([request(1, 2)], 1.0)] == [[-1.0, -1.0]]
    assert judges.learner.asked == [(1, 0.7, True), (1, 1.0, False)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("length", [(0, 2), (2, 0), (6, 7)])
def test_a_request_without_room_or_tokens_is_refused(length: tuple[int, int]) -> None:
    judge = Counting()
    text = rf"^judge other: a request has {length[0]} prompt and {length[1]} further tokens; .* at most 12 together"
    with pytest.raises(PluginError, match=text):
        judges_of(judge).judge("other").logprobs([request(1, 1), request(*length)])
    assert judge.asked == []


@pytest.mark.parametrize(
    ("name", "reference", "text"),
    [
        ("othr", True, "there is no judge 'othr'; did you mean 'other'.* Declared: start, policy, other, idle"),
        ("polic", True, "there is no judge 'polic'; did you mean 'policy'"),
        ("idle", True, "the judge idle is not loaded: whoever asks it must name it in `judges` of its spec"),
        ("start", False, "the judge start is not loaded"),
    ],
)
def test_a_judge_that_is_not_there_is_named(name: str, reference: bool, text: str) -> None:
    with pytest.raises(PluginError, match=f"^{text}"):
        judges_of(Counting(), reference=reference).judge(name)


def test_only_judges_that_can_sleep_do() -> None:
    judge = Counting()
    judges_of(judge).sleep()
    assert judge.events == ["asleep"]
    judges_of(object()).sleep()


class Follows(LossSpec):
    """Costs as much as the policy is surer of a token than a judge."""

    type: Literal["follows"] = "follows"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"old", "other"})

    def token_losses(self, view: LossView) -> torch.Tensor:
        return (view.log_probs - view.old) * (view.log_probs - view.judge("other")).detach() ** 2


def following() -> Objective:
    block = {"entropy_coefficient": 0.0, "on_policy": {"loss": Follows()}}
    config = ObjectiveConfig.model_validate(block, context={"catalog": plugins().catalog})
    return ObjectiveParts(config, BuildContext(), 7).at(StepContext(step=1))


def judged_sequences(judge: Counting) -> list[TrainSequence]:
    """Three of the student's responses and a teacher's answer, filled in by `judge`."""
    found = [sequence(n, i, 0.5, False, old_log_probs=torch.full((n,), -1.0)) for i, n in enumerate((3, 1, 4))]
    found.append(sequence(2, 2, 0.5, True))
    return judges_of(judge).fill_in(found, "other", range(4), [ON_POLICY])


def test_a_loss_reads_a_judge_by_name_and_only_where_its_term_trains() -> None:
    judge = Counting()
    assert following().judges == {"other": (ON_POLICY,)}
    sequences = judged_sequences(judge)
    assert [[len(one.token_ids) for one in asked] for asked, _ in judge.asked] == [[4, 3, 1]]
    assert [list(one.judged) for one in sequences] == [["other"]] * 3 + [[]]
    log_probs = [torch.full((len(one.pair.response_token_ids),), -0.5).requires_grad_(True) for one in sequences]
    _, gradients = run(following(), sequences, log_probs)
    squares = [[(-0.5 + 1 + i) ** 2 for i in range(n)] for n in (3, 1, 4)]
    for gradient, square in zip(gradients, squares, strict=False):
        torch.testing.assert_close(gradient / gradient[0], torch.tensor(square) / square[0])


@pytest.mark.parametrize("split", [[[0], [1], [2], [3]], [[2, 1], [3, 0]], [[3, 2, 1, 0]]], ids=str)
def test_micro_batches_change_nothing_of_a_loss_with_a_judge(split: Any) -> None:
    sequences = judged_sequences(Counting())
    log_probs = [
        torch.linspace(-2.0, -0.5, len(one.pair.response_token_ids)).double().requires_grad_(True) for one in sequences
    ]
    whole, gradients = run(following(), sequences, log_probs)
    value, others = run(following(), sequences, log_probs, split=split)
    assert value == pytest.approx(whole, rel=1e-12)
    for one, other in zip(others, gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_loss_whose_judge_was_not_asked_says_so() -> None:
    sequences = [replace(one, judged={}) for one in judged_sequences(Counting())]
    log_probs = [torch.full((len(one.pair.response_token_ids),), -0.5).requires_grad_(True) for one in sequences]
    with pytest.raises(ValueError, match="other"):
        run(following(), sequences, log_probs)
