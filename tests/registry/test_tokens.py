"""The sequence type of token ids and log-probs is what a tuple of them is, in a tenth of the memory."""

from __future__ import annotations

import copy
import json
import math
import pickle
from array import array
from collections.abc import Sequence

import numpy
import pytest
import torch
from ampo_registry import (
    Grade,
    Guidance,
    LogProbs,
    PluginError,
    Question,
    Rollout,
    RolloutRequest,
    SamplingOptions,
    TeacherAnswer,
    TokenIds,
)
from hypothesis import given, settings
from hypothesis import strategies as st

INT32 = st.integers(-(2**31), 2**31 - 1)
FLOAT32 = st.floats(width=32, allow_nan=False)


def sent(value):
    """As another process gets it."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301


@settings(max_examples=50, deadline=None)
@given(st.lists(INT32), st.lists(INT32), st.slices(8))
def test_token_ids_are_like_a_tuple(values, others, part):
    packed, plain = TokenIds(values), tuple(values)
    assert isinstance(packed, Sequence)
    assert packed == plain == packed
    assert packed == values
    assert hash(packed) == hash(plain)
    assert (len(packed), tuple(packed), tuple(reversed(packed))) == (len(plain), plain, plain[::-1])
    assert packed[part] == plain[part]
    assert type(packed[part]) is TokenIds
    assert packed + others == plain + tuple(others)
    assert others + packed == tuple(others) + packed == (*others, *plain)
    assert (packed == others) == (plain == tuple(others))
    assert packed != [*values, 0]
    assert (packed < TokenIds(others)) == (packed < tuple(others)) == (plain < tuple(others))
    assert all(value in packed for value in values)


@settings(max_examples=50, deadline=None)
@given(st.lists(FLOAT32))
def test_log_probs_hold_float32_to_the_bit(values):
    packed = LogProbs(values)
    assert list(packed) == values
    assert packed == tuple(values)
    assert hash(packed) == hash(tuple(values))
    again = sent(packed)
    assert again == packed
    assert bytes(again.buffer) == numpy.array(values, dtype=numpy.float32).tobytes()


def test_log_probs_are_equal_to_the_numbers_that_they_hold_and_hashed_as_these():
    held = LogProbs([0.1])
    assert held == LogProbs((0.1,)) == tuple(held)
    assert held != (0.1,)  # which is hashed otherwise
    assert held[0] != 0.1
    assert len({held, LogProbs([0.1]), tuple(held)}) == 1
    assert LogProbs([1, 2]) == TokenIds([1, 2]) == (1.0, 2.0)


def test_what_is_no_number_equals_nothing():
    assert TokenIds([1]) != "1"
    assert TokenIds([1]) != ["1"]
    assert TokenIds([1]) != [2**40]
    assert TokenIds([97]) != b"a"
    assert TokenIds() != ""
    assert TokenIds() != b""
    assert TokenIds() == ()
    assert TokenIds([1]) != 1
    nan = LogProbs([math.nan])
    assert sent(nan) == nan
    assert hash(nan) == hash(LogProbs([math.nan]))


@pytest.mark.parametrize(
    "values",
    [
        array("i", [1, 2, 3]),
        array("q", [1, 2, 3]),
        numpy.array([1, 2, 3], dtype=numpy.int32),
        numpy.array([1, 2, 3], dtype=numpy.int64),
        numpy.array([[1, 9], [2, 9], [3, 9]], dtype=numpy.int32)[:, 0],
        torch.tensor([1, 2, 3]),
        torch.tensor([1, 2, 3], dtype=torch.int32).numpy(),
        bytes([1, 2, 3]),
        memoryview(array("i", [1, 2, 3])),
        range(1, 4),
        iter((1, 2, 3)),
        {1: "a", 2: "b", 3: "c"},
    ],
)
def test_made_of_anything_with_numbers(values):
    assert TokenIds(values) == (1, 2, 3)


def test_arrays_of_log_probs():
    values = [-0.5, -0.25]
    for made in (numpy.array(values, dtype=numpy.float32), numpy.array(values), numpy.array(values, numpy.float16)):
        assert LogProbs(made) == values
    assert LogProbs(torch.tensor(values).numpy()) == values


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (TokenIds, [7, 2**31, 1], r"TokenIds: number 2 of 3 is 2147483648; allowed: whole numbers from -2147483648 to"),
        (TokenIds, [1.5], "TokenIds: number 1 of 1 is 1.5; allowed: whole numbers"),
        (TokenIds, "ab", "TokenIds: number 1 of 2 is 'a'"),
        (TokenIds, 5, "TokenIds: found 5; wanted a sequence of whole numbers"),
        (LogProbs, [0.0, None], "LogProbs: number 2 of 2 is None; allowed: numbers"),
        (LogProbs, [10**400], "LogProbs: number 1 of 1 is 1000"),
        (LogProbs, None, "LogProbs: found None; wanted a sequence of numbers"),
    ],
)
def test_errors_say_which_number(kind, values, said):
    with pytest.raises(PluginError, match=said):
        kind(values)


def test_it_is_immutable_and_cheap_to_hand_on():
    packed = TokenIds(range(2048))
    assert TokenIds.of(packed) is packed
    assert copy.copy(packed) is packed
    assert copy.deepcopy([packed])[0] is packed
    assert len(pickle.dumps(packed)) < 4 * 2048 + 100
    assert TokenIds.of_bytes(bytes(packed.buffer)) == packed
    with pytest.raises(TypeError):
        packed[0] = 1  # type: ignore[index]
    with pytest.raises(TypeError, match="read-only"):
        packed.buffer[0] = 1
    with pytest.raises(AttributeError):
        packed.note = "no place for it"  # type: ignore[attr-defined]
    assert repr(packed) == "TokenIds([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, … 2048 in all])"
    assert repr(LogProbs([-0.1])) == "LogProbs([-0.1])"


def test_data_classes_make_them_of_any_sequence():
    rollout = Rollout((1, 2), [-0.5, -0.25], "a", "stop", 0)
    assert rollout == Rollout(TokenIds([1, 2]), LogProbs([-0.5, -0.25]), "a", "stop", 0)
    assert type(rollout.token_ids) is TokenIds
    assert type(rollout.logprobs) is LogProbs
    assert hash(rollout) == hash(sent(rollout))
    question = Question("q", (), (1,), "2", "s", answers=(TeacherAnswer("t", "a", (-0.5,)),))
    assert type(question.prompt_token_ids) is TokenIds
    assert type(question.answers[0].logprobs) is LogProbs
    assert TeacherAnswer("t", "a").logprobs is None
    guidance = Guidance("t", "a", [3], Grade(1.0, True, True), [-1.0])
    assert (type(guidance.token_ids), type(guidance.logprobs)) == (TokenIds, LogProbs)
    assert type(RolloutRequest([1], (0,)).prompt_token_ids) is TokenIds
    assert json.loads(json.dumps(list(rollout.token_ids))) == [1, 2]


def test_the_limit_of_a_request():
    options = SamplingOptions(1.0, 1.0, 16, ())
    limits = [options.limit_of(RolloutRequest((1,), (0,), own)) for own in (None, 1, 16, 99)]
    assert limits == [16, 1, 16, 16]
    with pytest.raises(PluginError, match="max_response_tokens = 0; at least 1, or None"):
        RolloutRequest((1,), (0,), 0)
