"""What is taken from a reward."""

import pytest
from ampo_plugins.rewards.math_verify import MathVerify
from ampo_registry import Grade, NgramPenalty, OverlongPenalty, Rollout

from ampo_core.grading.penalties import overlong_penalty, penalised, repetition_penalty

RIGHT = Grade(reward=1.0, correct=True, formatted=True)
ZERO = Grade(reward=0.0, correct=False, formatted=False)
LOOP = "again and " * 12


def rollout(text="fine", tokens=10):
    return Rollout(tuple(range(tokens)), (0.0,) * tokens, text, "stop", 0)


@pytest.mark.parametrize(("words", "penalty"), [(27, 0.0), (28, -0.5)])
def test_repetition_counts_overlapping_ngrams(words, penalty):
    text = " ".join("ab"[i % 2] for i in range(words))
    assert repetition_penalty(text, NgramPenalty(ngram=10, limit=10, value=-0.5)) == penalty


def test_repetition_penalty_spares_zero_rewards():
    spec = MathVerify(repetition_penalty=NgramPenalty(ngram=2, limit=10))
    assert penalised(RIGHT, rollout(LOOP), spec, 100) == Grade(reward=0.0, correct=True, formatted=True)
    assert penalised(ZERO, rollout(LOOP), spec, 100) is ZERO
    assert penalised(RIGHT, rollout(), spec, 100) is RIGHT


@pytest.mark.parametrize(("tokens", "value"), [(1, 0.0), (80, 0.0), (85, -0.5), (90, -1.0), (100, -2.0), (101, -2.0)])
def test_overlong_penalty_is_linear_over_the_buffer(tokens, value):
    assert overlong_penalty(tokens, 100, OverlongPenalty(buffer=20, value=-2.0)) == pytest.approx(value)


def test_penalties_add_up_and_leave_the_verdict():
    spec = MathVerify(repetition_penalty=NgramPenalty(ngram=2, limit=10), overlong_penalty=OverlongPenalty(buffer=20))
    found = penalised(RIGHT, rollout(LOOP, tokens=90), spec, 100)
    assert found == Grade(reward=pytest.approx(-0.5), correct=True, formatted=True)
    assert penalised(ZERO, rollout(LOOP, tokens=100), spec, 100).reward == -1.0


def test_without_penalties_nothing_changes():
    assert penalised(RIGHT, rollout(LOOP, tokens=100), MathVerify(), 100) is RIGHT
