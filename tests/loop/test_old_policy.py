"""Which sequences are forwarded before a batch's first update, which by it, and what is measured of them."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ampo_registry import Grade, Message, Question, Rollout, RunError, Sample

from ampo_core.distributed.ranks import Ranks
from ampo_core.loop.old_policy import ONE_IN, check_parity, fill_in, old_policy_metrics, plan_forwards
from ampo_core.loop.sequences import TrainSequence, minibatches

_spec = importlib.util.spec_from_file_location("objectives", Path(__file__).parent / "objectives.py")
assert _spec is not None
assert _spec.loader is not None
objectives = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(objectives)

CPU = torch.device("cpu")
ONE = Ranks(0, 1, CPU)
QUESTION = Question("q", (Message("user", "?"),), (0,), "7", "test")
OBJECTIVE, is_off_policy = objectives.make_objective({}), objectives.is_off_policy


def sequence(group: int, advantage: float = 1.0, *, off_policy: bool = False, stale: bool = False) -> TrainSequence:
    rollout = Rollout((1, 2), (-1.0, -2.0), "", "stop", 0)
    sample = None if off_policy else Sample.sampled(QUESTION, rollout, Grade(1.0, True, True))
    return replace(objectives.sequence(2, group, advantage, off_policy), sample=sample, stale=stale)


def batch(groups: int, size: int = 16, **options: Any) -> list[TrainSequence]:
    """Groups with a teacher's answer, and of each of the two halves one without gradient."""
    return [
        sequence(g, 0.0 if i % 8 == 7 else 1.0, off_policy=i == 0, **({} if i == 0 else options))
        for g in range(groups)
        for i in range(size)
    ]


@pytest.mark.parametrize(
    ("groups", "questions", "sizes"),
    [(8, 2, [2, 2, 2, 2]), (5, 2, [2, 2, 1]), (1, 2, [1]), (7, 4, [4, 3]), (9, 4, [3, 3, 3]), (0, 4, [])],
)
def test_minibatches_are_few_and_even(groups: int, questions: int, sizes: list[int]) -> None:
    sequences = batch(groups, size=2)
    found = minibatches(sequences, questions)
    assert [len({sequences[i].group for i in members}) for members in found] == sizes
    assert sorted(i for members in found for i in members) == list(range(2 * groups))


def test_full_batches_are_dealt_out_group_by_group() -> None:
    assert minibatches(batch(4, size=1), 2) == [[0, 2], [1, 3]]


def test_the_first_update_s_own_forward_is_that_of_the_old_policy() -> None:
    sequences = batch(4)
    parts = minibatches(sequences, 2)
    plan = plan_forwards(sequences, parts, OBJECTIVE, 2, ONE)
    assert plan.updates == [[i for i in members if sequences[i].advantage] for members in parts]
    first, second = plan.updates
    needed = {i for i in second if not is_off_policy(sequences[i])}
    alone = {i for i in plan.before if not sequences[i].advantage}
    assert set(plan.before) == needed | alone
    assert not set(plan.before) & set(first)
    assert {i: plan.counts[i] for i in plan.counts if i in needed or i in first} == {
        i: 1 for i in [*first, *second] if not is_off_policy(sequences[i])
    }
    assert {plan.counts[i] for i in alone} <= {ONE_IN}


def test_a_batch_that_was_sampled_ahead_needs_no_pass_of_its_own() -> None:
    sequences = batch(4, stale=True)
    parts = minibatches(sequences, 2)
    plan = plan_forwards(sequences, parts, OBJECTIVE, 2, ONE)
    own = {i for i in plan.updates[0] if not is_off_policy(sequences[i])}
    assert {i for i, count in plan.counts.items() if count == 1} == own
    others = [i for i, s in enumerate(sequences) if not is_off_policy(s) and i not in own]
    assert plan.before == [i for i in sorted(plan.before) if i in others and plan.counts[i] == ONE_IN]
    assert len(plan.before) <= len(others) // ONE_IN + 2


def test_in_the_first_step_every_rollout_is_measured_once() -> None:
    sequences = batch(4)
    plan = plan_forwards(sequences, minibatches(sequences, 2), OBJECTIVE, 1, ONE)
    assert plan.counts == {i: 1 for i, s in enumerate(sequences) if not is_off_policy(s)}


def test_over_the_steps_every_rollout_counts_alike() -> None:
    sequences = batch(4)
    parts = minibatches(sequences, 2)
    total = dict.fromkeys((i for i, s in enumerate(sequences) if not is_off_policy(s)), 0)
    for step in range(2, 2 + ONE_IN):
        for i, count in plan_forwards(sequences, parts, OBJECTIVE, step, ONE).counts.items():
            total[i] += count
    assert set(total.values()) == {ONE_IN}


def test_ranks_share_the_work_without_gap_or_overlap() -> None:
    sequences = batch(4)
    parts = minibatches(sequences, 2)
    whole = plan_forwards(sequences, parts, OBJECTIVE, 3, ONE)
    shares = [plan_forwards(sequences, parts, OBJECTIVE, 3, Ranks(rank, 2, CPU)) for rank in range(2)]
    assert sorted(shares[0].before + shares[1].before) == sorted(whole.before)
    assert shares[0].counts | shares[1].counts == whole.counts
    for number, members in enumerate(whole.updates):
        assert sorted(shares[0].updates[number] + shares[1].updates[number]) == members


def test_old_log_probs_are_filled_in_where_there_are_none() -> None:
    known = replace(sequence(0), old_log_probs=torch.tensor([-5.0, -5.0]))
    values = (torch.tensor([-1.0, -2.0]), torch.tensor([0.5, 0.5]))
    filled = fill_in([known, sequence(0), sequence(0, off_policy=True)], {0: values, 1: values, 2: values})
    assert filled[0].old_log_probs is known.old_log_probs
    assert filled[1].old_log_probs is values[0]
    assert filled[2].old_log_probs is values[0]


def test_metrics_are_means_over_the_tokens_that_they_stand_for() -> None:
    forwarded = {
        0: (torch.tensor([-1.5, -2.0]), torch.tensor([1.0, 1.0])),
        1: (torch.tensor([-1.0, -2.0]), torch.tensor([2.0, 4.0])),
    }
    found = old_policy_metrics([sequence(0), sequence(0)], {0: 1, 1: 8}, forwarded, ONE)
    assert found["policy/entropy"] == pytest.approx((2 + 8 * 6) / 18)
    assert found["policy/rollout_logprob_gap"] == pytest.approx(0.5 / 18)
    assert old_policy_metrics([], {}, {}, ONE) == {}


def test_a_gap_over_the_limit_stops_the_run() -> None:
    for gap, limit in ((0.1, None), (None, 0.05), (0.05, 0.05)):
        check_parity(gap, limit, 3)
    with pytest.raises(RunError, match=r"step 3: .* 0\.1 nats a token"):
        check_parity(0.1, 0.05, 3)


def test_without_sequences_there_is_nothing_to_forward() -> None:
    plan = plan_forwards([], [], OBJECTIVE, 2, ONE)
    assert (plan.before, plan.updates, plan.counts) == ([], [], {})
