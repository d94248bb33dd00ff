"""A batch that was sampled ahead: handed out once, and only for what it was sampled for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256

import pytest
import torch
from ampo_registry import Grade, Message, Question, Rollout, RolloutRequest, RunError, TokenIds

from ampo_core.distributed.ranks import Ranks
from ampo_core.loop.ahead import SampleAhead, SampledBatch

QUESTIONS = [Question(f"q{i}", (Message("user", f"{i}?"),), (1, i), str(i), "test") for i in range(3)]
REQUESTS = [RolloutRequest(question.prompt_token_ids, (10 + i, 20 + i)) for i, question in enumerate(QUESTIONS)]


def sampled() -> SampledBatch:
    rollouts = [[Rollout((i, 2), (-0.1 / 3, -1e-17), f"{i}", "stop", 4) for _ in range(2)] for i in range(3)]
    return SampledBatch(rollouts, [[Grade(0.9, True, False)] * 2 for _ in range(3)])


@pytest.fixture
def ahead() -> Iterator[SampleAhead]:
    made = SampleAhead(Ranks(0, 1, torch.device("cpu")))
    yield made
    made.close()


def test_a_batch_is_handed_out_once(ahead: SampleAhead) -> None:
    assert ahead.take(QUESTIONS, REQUESTS) is None
    ahead.start(QUESTIONS, REQUESTS, sampled)
    assert ahead.take(QUESTIONS, REQUESTS) == sampled()
    assert ahead.take(QUESTIONS, REQUESTS) is None
    assert ahead.state_dict() == {}


def test_it_survives_a_checkpoint_bit_for_bit(ahead: SampleAhead) -> None:
    ahead.start(QUESTIONS, REQUESTS, sampled)
    state = json.loads(json.dumps(ahead.state_dict()))
    later = SampleAhead(Ranks(0, 1, torch.device("cpu")))
    later.load_state_dict(state)
    assert later.take(QUESTIONS, REQUESTS) == sampled()
    later.close()


@pytest.mark.parametrize("change", ["question", "prompt", "seeds", "fewer"])
def test_rollouts_of_other_questions_prompts_or_seeds_are_not_used(ahead: SampleAhead, change: str) -> None:
    ahead.start(QUESTIONS, REQUESTS, sampled)
    questions, requests = list(QUESTIONS), list(REQUESTS)
    if change == "question":
        questions[1] = replace(questions[1], uid="another")
    elif change == "prompt":
        requests[1] = replace(requests[1], prompt_token_ids=(7,))
    elif change == "seeds":
        requests[2] = replace(requests[2], seeds=(1, 2))
    else:
        questions, requests = questions[:2], requests[:2]
    assert ahead.take(questions, requests) is None


def test_a_long_prompt_counts_to_its_last_token(ahead: SampleAhead) -> None:
    long = [replace(request, prompt_token_ids=TokenIds(range(1000))) for request in REQUESTS]
    ahead.start(QUESTIONS, long, sampled)
    other = [replace(request, prompt_token_ids=TokenIds([*range(999), 7])) for request in long]
    assert ahead.take(QUESTIONS, other) is None


def test_what_an_older_version_has_written_down_is_taken(ahead: SampleAhead) -> None:
    """A ticket is made of question, prompt and seeds as a tuple of tuples."""
    rollout = {
        "token_ids": [0, 2],
        "logprobs": [-0.5, -0.25],
        "text": "0",
        "finish_reason": "stop",
        "policy_version": 4,
    }
    grade = {"reward": 0.9, "correct": True, "formatted": False, "status": "ok", "detail": ""}
    ticket = sha256(repr(("q0", (1, 0), (10, 20))).encode()).hexdigest()
    ahead.load_state_dict({"rollouts": [[rollout] * 2], "verdicts": [[grade] * 2], "tickets": [ticket]})
    found = ahead.take(QUESTIONS[:1], REQUESTS[:1])
    assert found == SampledBatch(
        [[Rollout((0, 2), (-0.5, -0.25), "0", "stop", 4)] * 2], [[Grade(0.9, True, False)] * 2]
    )


def test_what_goes_wrong_in_the_thread_is_raised(ahead: SampleAhead) -> None:
    def broken() -> SampledBatch:
        raise RunError("the sampler broke")

    ahead.start(QUESTIONS, REQUESTS, broken)
    with pytest.raises(RunError, match="the sampler broke"):
        ahead.wait()
