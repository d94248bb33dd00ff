"""From groups to what is trained on: what has no verdict is no part of the loss, and mini-batches share a batch."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ampo_registry import Grade, Guidance, Message, Question, Rollout, RolloutGroup, Sample, Selection

from ampo_core.config.objective import ObjectiveConfig
from ampo_core.config.tree import TrainingConfig
from ampo_core.learner.schedule import LearningRate
from ampo_core.loop.groups import AugmentedGroup, GuidedBatch, GuidedQuestion, unguided
from ampo_core.loop.judges import Judges
from ampo_core.loop.minibatch_loss import MiniBatchLoss
from ampo_core.loop.parts import UpdateParts
from ampo_core.loop.sequences import TrainSequence, minibatches, train_sequences

_spec = importlib.util.spec_from_file_location("objectives", Path(__file__).parent / "objectives.py")
assert _spec is not None
assert _spec.loader is not None
objectives = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(objectives)

QUESTION = Question("q", (Message("user", "?"),), (1,), "7", "test")


def group(*grades: Grade, advantages: tuple[float, ...], version: int = 0) -> GuidedQuestion:
    rollouts = tuple(Rollout((5, 6, 7), (-1.0, -1.0, -1.0), "", "stop", version) for _ in grades)
    samples = unguided(RolloutGroup(QUESTION, rollouts, grades, 0.6)).samples
    return GuidedQuestion(QUESTION, (AugmentedGroup(samples, advantages),))


def with_samples(found: GuidedQuestion, *samples: Sample) -> GuidedQuestion:
    return replace(found, groups=(replace(found.groups[0], samples=samples),))


def sequences_of(
    found: Sequence[GuidedQuestion], step: int, config: ObjectiveConfig, *needs: str
) -> list[TrainSequence]:
    return train_sequences(GuidedBatch(tuple(found)), step, config, frozenset(needs))


RIGHT, WRONG = Grade(1.0, True, True), Grade(0.0, False, True)
LATE, BROKEN = Grade(0.1, False, True, "timeout"), Grade(0.0, False, False, "error")


@pytest.mark.parametrize("scope", ["group", "batch"])
@pytest.mark.parametrize("entropy", [0.0, 0.01])
def test_a_rollout_without_a_verdict_is_left_out_of_loss_and_denominators(scope: str, entropy: float) -> None:
    objective = objectives.make_objective({"scope": scope, "entropy_coefficient": entropy, "advantage": "mean_only"})
    with_them = group(RIGHT, LATE, WRONG, BROKEN, advantages=(0.5, 0.0, -0.5, 0.0))
    without = group(RIGHT, WRONG, advantages=(0.5, -0.5))
    values = []
    for found in (with_them, without):
        sequences = sequences_of([found], 1, objective.config)
        chosen = objective.trained(sequences)
        assert len(chosen) == 2
        log_probs = [torch.full((3,), -1.0 - 0.1 * i, dtype=torch.float64) for i in range(2)]
        entropies = [torch.ones(3, dtype=torch.float64) for _ in range(2)]
        loss = MiniBatchLoss(objective, sequences, chosen, first=True)
        values.append(float(loss([0, 1], log_probs, entropies)))
        assert objective.weights(sequences)["on_policy"].count_nonzero() == 2
    assert values[0] == values[1]


def test_a_teacher_s_answer_in_the_place_of_one_is_trained_on() -> None:
    guidance = Guidance("A", "x", (8, 9), RIGHT)
    found = group(LATE, WRONG, advantages=(1.0, -1.0))
    taken = Sample.answer(QUESTION, Selection(guidance))
    slots = (taken, found.samples[1])
    sequences = sequences_of([with_samples(found, *slots)], 1, objectives.make_objective({}).config)
    assert [s.spans for s in sequences] == [(("off_policy", 0, 2),), (("on_policy", 0, 3),)]


def test_only_what_an_older_policy_sampled_is_weighed_by_the_sampler_s_log_probs() -> None:
    config = objectives.make_objective({}).config
    (fresh,) = sequences_of([group(RIGHT, advantages=(1.0,), version=4)], 5, config)
    (stale,) = sequences_of([group(RIGHT, advantages=(1.0,), version=3)], 5, config)
    assert (fresh.stale, fresh.old_log_probs) == (False, None)
    assert stale.stale
    assert stale.old_log_probs is not None
    assert stale.old_log_probs.tolist() == [-1.0, -1.0, -1.0]


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize(("reason", "cut"), [("stop", False), ("length", True)])
def test_a_truncated_rollout_is_masked_where_the_config_says_so(masks: bool, reason: str, cut: bool) -> None:
    config = objectives.make_objective({"on_policy": {"mask_truncated": masks}}).config
    found = group(RIGHT, advantages=(1.0,))
    slot = replace(found.samples[0], rollout=replace(found.samples[0].rollout, finish_reason=reason))
    (sequence,) = sequences_of(
        [
            with_samples(
                found,
                slot,
            )
        ],
        1,
        config,
    )
    assert (sequence.spans == ()) == (masks and cut)


@pytest.mark.parametrize("cap", [2.0, None])
def test_the_sampler_s_log_probs_are_kept_only_to_weigh_by(cap: float | None) -> None:
    objective = objectives.make_objective({"on_policy": {"importance_cap": cap}})
    guidance = Guidance("A", "x", (8, 9), RIGHT)
    found = group(WRONG, WRONG, advantages=(1.0, -1.0))
    taken = Sample.answer(QUESTION, Selection(guidance))
    own, off = sequences_of([with_samples(found, found.samples[0], taken)], 1, objective.config, *objective.needs)
    assert (own.rollout_log_probs is not None) == (cap is not None)
    assert own.rollout_log_probs is None or own.rollout_log_probs.tolist() == [-1.0, -1.0, -1.0]
    assert (off.rollout_log_probs, off.old_log_probs) == (None, None)


def test_recorded_log_probs_are_the_teachers_own() -> None:
    config = objectives.make_objective(
        {"off_policy": {"loss": {"type": "shaped", "behaviour_policy": "recorded"}}}
    ).config
    guidance = Guidance("A", "x", (8, 9), RIGHT, logprobs=(-0.25, -0.5))
    found = group(WRONG, WRONG, advantages=(1.0, -1.0))
    taken = Sample.answer(QUESTION, Selection(guidance))
    own, off = sequences_of([with_samples(found, found.samples[0], taken)], 1, config, "behaviour")
    assert own.behaviour_log_probs is not None
    assert own.behaviour_log_probs.tolist() == [-1.0, -1.0, -1.0]
    assert off.behaviour_log_probs is not None
    assert off.behaviour_log_probs.tolist() == [-0.25, -0.5]


def test_mini_batches_deal_the_groups_out_whole() -> None:
    config = objectives.make_objective({}).config
    sequences = sequences_of([group(RIGHT, WRONG, advantages=(1.0, -1.0))] * 5, 1, config)
    found = minibatches(sequences, 2)
    assert [sorted({sequences[i].group for i in batch}) for batch in found] == [[0, 3], [1, 4], [2]]
    assert sorted(i for batch in found for i in batch) == list(range(10))


def test_only_rollouts_of_this_rank_get_log_probs_of_the_start_model() -> None:
    class StartModel:
        """Keeps what it is asked for."""

        def logprobs(self, pairs, *, temperature, reference):
            self.asked = [(len(pair), temperature, reference) for pair in pairs]
            return [torch.full((len(pair.response_token_ids),), -2.0) for pair in pairs]

    guidance = Guidance("A", "x", (8, 9), RIGHT)
    found = group(RIGHT, WRONG, WRONG, advantages=(1.0, -1.0, 0.0))
    taken = Sample.answer(QUESTION, Selection(guidance))
    config = objectives.make_objective({}).config
    sequences = sequences_of([with_samples(found, found.samples[0], taken, found.samples[2])], 1, config)
    learner = StartModel()
    judges = Judges(learner, {}, declared=(), temperature=0.6, most=99)  # type: ignore[arg-type]
    filled = judges.fill_in(sequences, "start", [0, 1], ["on_policy"])
    assert learner.asked == [(4, 0.6, True)]
    assert [s.reference_log_probs is not None for s in filled] == [True, False, False]
    assert filled[0].reference_log_probs is not None
    assert filled[0].reference_log_probs.tolist() == [-2.0] * 3


def parts_of(training: TrainingConfig) -> UpdateParts:
    rate = LearningRate(training, training.updates * training.steps, training.warmup_steps)
    unused: tuple[None, None, None, None] = (None, None, None, None)
    return UpdateParts(training, *unused, rate, 1.0, None)  # type: ignore[arg-type]


def test_a_group_as_it_was_sampled_was_not_triggered() -> None:
    found = unguided(RolloutGroup(QUESTION, (), (), 0.6))
    assert (found.triggered, found.samples, found.groups[0].advantages) == (False, (), ())


def test_the_learning_rate_follows_the_batches_however_many_updates_they_make() -> None:
    training = TrainingConfig(
        steps=10, questions_per_batch=8, questions_per_minibatch=2, learning_rate=1.0, schedule="linear", warmup_steps=4
    )
    parts = parts_of(training)
    whole = [parts.learning_rate_at(step, done, 4) for step in (1, 2, 3) for done in range(4)]
    assert whole == [parts.learning_rate.at(position) for position in range(12)]
    # five groups are left of eight: three mini-batches, and the second step begins where it always does
    kept = minibatches(sequences_of([group(RIGHT, advantages=(1.0,))] * 5, 1, objectives.make_objective({}).config), 2)
    assert len(kept) == 3
    assert [parts.learning_rate_at(1, done, 3) for done in range(3)] == pytest.approx([1 / 4, 7 / 12, 11 / 12])
    assert [parts.learning_rate_at(3, done, 3) for done in range(3)] == pytest.approx(
        [1 - 4 / 36, 1 - (4 + 4 / 3) / 36, 1 - (4 + 8 / 3) / 36]
    )
    assert parts.learning_rate_at(2) == whole[4]
