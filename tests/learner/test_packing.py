"""Micro-batches: every index once, never above the budget, about as few as can be, and even."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ampo_core.learner.packing import TokenPair, microbatches

BUDGET = 100


@st.composite
def full_batches(draw: st.DrawFn) -> tuple[int, list[int]]:
    """A number of micro-batches that is enough by construction, and the lengths in them, shuffled."""
    batches = draw(st.lists(st.lists(st.integers(1, BUDGET), min_size=1, max_size=12), max_size=12))
    kept = [[n for n, end in zip(batch, accumulate(batch), strict=True) if end <= BUDGET] for batch in batches]
    return len(batches), draw(st.permutations([length for batch in kept for length in batch]))


@settings(max_examples=200, deadline=None)
@given(full_batches())
def test_every_index_once_under_the_cap_and_few(batches_and_lengths: tuple[int, list[int]]) -> None:
    enough, lengths = batches_and_lengths
    batches = microbatches(lengths, BUDGET)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(0 < sum(lengths[i] for i in batch) <= BUDGET for batch in batches)
    assert len(batches) <= 11 / 9 * enough + 1
    assert batches == microbatches(tuple(lengths), BUDGET)


def test_long_sequences_are_paired_with_short_ones() -> None:
    lengths = [90, 80, 70, 60, 40, 30, 20, 10]
    assert len(microbatches(lengths, 100)) == 4


def test_short_sequences_stay_with_their_neighbours_in_length_and_the_parts_are_even() -> None:
    lengths = [40 + i % 50 for i in range(128)]
    batches = microbatches(lengths, 1024)
    sums = [sum(lengths[i] for i in batch) for batch in batches]
    assert len(batches) == -(-sum(lengths) // 1024)
    assert max(sums) - min(sums) < 90
    spans = sorted((min(lengths[i] for i in batch), max(lengths[i] for i in batch)) for batch in batches)
    assert all(upper <= lower for (_, upper), (lower, _) in pairwise(spans))


@pytest.mark.parametrize(
    ("lengths", "budget", "packed"),
    [
        ([10, 8, 5, 4, 2, 1], 13, [[10], [8], [5, 4, 2, 1]]),
        ([11, 9, 7, 5, 4, 1], 13, [[11, 1], [9, 4], [7, 5]]),
        ([6, 5, 1, 1], 6, [[6], [5, 1], [1]]),
        ([11, 8, 7, 6, 5, 1], 14, [[11, 1], [8, 5], [7, 6]]),
        ([12, 8, 5, 4], 13, [[12], [8], [5, 4]]),
        ([7, 7, 4, 4, 1, 1], 13, [[7, 4, 1], [7, 4, 1]]),
    ],
)
def test_the_smallest_cap_that_needs_no_more_of_them_makes_them_even(
    lengths: list[int], budget: int, packed: list[list[int]]
) -> None:
    assert [[lengths[i] for i in batch] for batch in microbatches(lengths, budget)] == packed


def test_a_pair_is_as_long_as_its_prompt_and_response() -> None:
    assert len(TokenPair((1, 2, 3), (4, 5))) == 5


def test_nothing_to_pack_and_a_sequence_above_the_budget() -> None:
    assert microbatches([], 10) == []
    assert microbatches([10], 10) == [[0]]
    with pytest.raises(ValueError, match="a sequence of 129 tokens exceeds tokens_per_microbatch = 128"):
        microbatches([1, 129], 128)
