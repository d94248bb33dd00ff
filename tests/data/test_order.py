"""The order of questions and the seeds: pure functions of where in the run one is."""

import pytest
from ampo_registry import ConfigError, DataError

from ampo_core.data.order import QuestionStream
from ampo_core.data.seeds import derive_seed, request_rng, sample_seed


def test_each_epoch_is_a_new_order_of_all_questions():
    stream = QuestionStream([7, 3], seed=1)
    epochs = [stream.take(10 * epoch, 10) for epoch in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_last_partial_batch_is_filled_from_the_next_epoch():
    stream = QuestionStream([10], seed=1)
    batches = [stream.take((step - 1) * 4, 4) for step in (1, 2, 3)]
    assert [len(batch) for batch in batches] == [4, 4, 4]
    joined = [index for batch in batches for index in batch]
    assert joined == stream.take(0, 12)
    assert sorted(joined[:10]) == list(range(10))


@pytest.mark.parametrize("weights", [None, [1.0, 3.0]])
def test_a_resumed_stream_needs_no_state(weights):
    whole = QuestionStream([50, 7], seed=3, weights=weights)
    batches = [whole.take((step - 1) * 8, 8) for step in range(1, 21)]
    assert QuestionStream([50, 7], seed=3, weights=weights).take(19 * 8, 8) == batches[19]
    assert whole.take(8, 8) == batches[1]


def test_seed_decides():
    assert QuestionStream([50], seed=0).take(0, 20) != QuestionStream([50], seed=1).take(0, 20)


def test_order_is_pinned():
    assert QuestionStream([6], seed=0).take(0, 12) == [4, 1, 0, 5, 3, 2, 0, 3, 5, 1, 2, 4]


def test_without_shuffle_the_files_order_stays():
    assert QuestionStream([2, 3], seed=0, shuffle=False).take(0, 7) == [0, 1, 2, 3, 4, 0, 1]


def test_weights_are_shares_at_every_position():
    stream = QuestionStream([100, 4], seed=0, weights=[3.0, 1.0])
    for count in range(1, 200):
        from_second = sum(index >= 100 for index in stream.take(0, count))
        assert abs(from_second - count / 4) <= 1
    second = [index for index in stream.take(0, 64) if index >= 100]
    assert sorted(second[:4]) == sorted(second[4:8]) == [100, 101, 102, 103]


def test_bad_arguments():
    with pytest.raises(DataError, match="no question is left"):
        QuestionStream([0, 0], seed=0)
    with pytest.raises(ConfigError, match="1 weights for 2 files"):
        QuestionStream([1, 1], seed=0, weights=[1.0])
    with pytest.raises(DataError, match="file 2"):
        QuestionStream([1, 0], seed=0, weights=[1.0, 1.0])


def test_sample_seeds_differ_in_every_part_and_fit_63_bits():
    seeds = {sample_seed(r, s, p, n) for r in range(3) for s in range(4) for p in range(5) for n in range(6)}
    assert len(seeds) == 3 * 4 * 5 * 6
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_are_the_same_on_every_machine():
    assert sample_seed(0, 1, 2, 3) == 9191823808448055831
    assert request_rng(0, 1, 2).random() == 0.11739201343146222
    assert derive_seed(1, 23) != derive_seed(12, 3)
    assert derive_seed("1") != derive_seed(1)
