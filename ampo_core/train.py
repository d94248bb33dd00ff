"""The training loop. One step, read top to bottom, is one pass through the hops:

sample → grade → trigger → teacher pool → select → replace → advantages → filter → pack → forward → loss → step → sync

`guidance: null` leaves out trigger to replace, and what remains is GRPO.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from ampo_registry.protocols import SelectionContext
from ampo_registry.types import GradeRequest, Question, Rollout, RolloutGroup, RolloutRequest, StepReport

from ampo_core.assemble import TrainParts, assemble
from ampo_core.config.jobs import TrainJob
from ampo_core.data.seeds import derive_seed, sample_seed
from ampo_core.environment import Environment
from ampo_core.guidance import AugmentedGroup, Slot, augment, select, triggered
from ampo_core.metrics import (
    Stopwatch,
    group_report,
    guidance_metrics,
    old_policy_metrics,
    rollout_metrics,
    update_metrics,
)
from ampo_core.objective import MiniBatchLoss, TrainSequence
from ampo_core.packing import TokenPair
from ampo_core.penalties import penalised

RESAMPLE_ROUNDS = 10
"""With `group_filter.resample`, a step samples at most this many times before it trains on what it has."""


@dataclass(frozen=True, slots=True)
class TrainGroup:
    """An augmented group with the advantage of each slot."""

    group: AugmentedGroup
    advantages: tuple[float, ...]


def run(job: TrainJob, environment: Environment) -> Path:
    """Train as `job` says; returns the final policy folder. Nothing has started when bad input is refused."""
    with assemble(job, environment) as parts:
        parts.reporter.started()
        parts.reporter.evaluated(0, parts.evaluator.at_start())
        taken = 0
        for step in range(1, job.training.steps + 1):
            report, taken = train_step(step, taken, parts)
            parts.reporter.stepped(report, parts.learner, parts.evaluator.after(step))
        return parts.reporter.finished()


def train_step(step: int, taken: int, parts: TrainParts) -> tuple[StepReport, int]:
    """One step from position `taken` of the question stream; returns its report and the new position."""
    watch = Stopwatch()
    wanted = parts.job.training.questions_per_batch
    sampled: list[RolloutGroup] = []
    augmented: list[AugmentedGroup] = []
    kept: list[TrainGroup] = []
    for _ in range(RESAMPLE_ROUNDS if parts.resample else 1):
        questions = parts.take(taken, wanted - len(kept))
        position, taken = len(sampled), taken + len(questions)

        with watch.measure("rollout"):
            rollouts = sample(questions, step, position, parts)
        with watch.measure("reward"):
            groups = grade(questions, rollouts, parts)
        with watch.measure("guidance"):
            rescued = guide(groups, step, position, parts)
        sampled, augmented = sampled + groups, augmented + rescued
        kept += keep_signal([with_advantages(group, parts) for group in rescued], parts)
        if len(kept) == wanted:
            break

    with watch.measure("update"):
        policy_metrics = update(kept, parts)
    with watch.measure("sync"):
        parts.engine.load_weights(parts.learner.weights(), policy_version=step)

    metrics = {
        **rollout_metrics(sampled),
        **(guidance_metrics(augmented) if parts.guidance else {}),
        **policy_metrics,
        **parts.counted(),
        "groups/trained": float(len(kept)),
        **watch.metrics(),
    }
    return StepReport(step, metrics, tuple(group_report(group) for group in augmented)), taken


def sample(questions: Sequence[Question], step: int, position: int, parts: TrainParts) -> list[list[Rollout]]:
    """G rollouts of each question. A sample's seed is a function of (run seed, step, position, sample)."""
    requests = [
        RolloutRequest(
            question.prompt_token_ids,
            tuple(sample_seed(parts.seed, step, position + i, s) for s in range(parts.job.rollout.group_size)),
        )
        for i, question in enumerate(questions)
    ]
    parts.engine.wake()
    rollouts = parts.engine.generate(parts.ranks.shard(requests), parts.sampling)
    parts.engine.sleep()
    return parts.ranks.gather(rollouts, len(requests))


def grade(
    questions: Sequence[Question], rollouts: Sequence[Sequence[Rollout]], parts: TrainParts
) -> list[RolloutGroup]:
    """Each rollout verified against its question's answer, penalties included."""
    requests = [
        GradeRequest(rollout.text, question.answer, question.source)
        for question, group in zip(questions, rollouts, strict=True)
        for rollout in group
    ]
    grades = parts.ranks.gather(parts.grader.grade(parts.ranks.shard(requests)), len(requests))
    verdicts = iter(grades)
    return [
        RolloutGroup(
            question,
            tuple(group),
            tuple(
                penalised(next(verdicts), rollout, parts.job.reward, parts.sampling.max_response_tokens)
                for rollout in group
            ),
            parts.threshold,
        )
        for question, group in zip(questions, rollouts, strict=True)
    ]


def guide(groups: Sequence[RolloutGroup], step: int, position: int, parts: TrainParts) -> list[AugmentedGroup]:
    """Triggered groups get teacher answers in place of wrong rollouts; all others pass unchanged."""
    guidance = parts.guidance
    chosen = {}
    if guidance is not None:
        fired = triggered(groups, guidance.trigger, step)
        candidates = guidance.library.candidates([groups[i].question for i in fired])
        selections = select(
            [groups[i] for i in fired],
            candidates,
            [position + i for i in fired],
            guidance.selector,
            replacements=guidance.config.replacements,
            seed=parts.seed,
            context=SelectionContext(guidance.scorer, step),
        )
        chosen = dict(zip(fired, selections, strict=True))
    return [
        augment(
            group,
            chosen.get(i, ()),
            Random(derive_seed("replacement", parts.seed, step, position + i)),
            triggered=i in chosen,
            teacher_reward=guidance.config.teacher_reward if guidance else "verified",
        )
        for i, group in enumerate(groups)
    ]


def with_advantages(group: AugmentedGroup, parts: TrainParts) -> TrainGroup:
    """The advantages of an augmented group (Eq. 1 and 6): tensors begin here."""
    advantages = parts.advantage.advantages(
        torch.tensor([slot.reward for slot in group.slots], dtype=torch.float64),
        torch.tensor([slot.correct for slot in group.slots]),
        torch.tensor([slot.off_policy for slot in group.slots]),
    )
    return TrainGroup(group, tuple(advantages.tolist()))


def keep_signal(groups: Sequence[TrainGroup], parts: TrainParts) -> list[TrainGroup]:
    """The groups that the group filter leaves; it comes after guidance, or it would drop what guidance rescued."""
    filtered = parts.job.objective.group_filter
    if filtered is None:
        return list(groups)
    dropped = {"all_correct": {True}, "all_wrong": {False}}
    return [g for g in groups if all({s.correct for s in g.group.slots} != dropped[kind] for kind in filtered.drop)]


def update(groups: Sequence[TrainGroup], parts: TrainParts) -> dict[str, float]:
    """One optimizer step for each mini-batch and epoch, and their metrics. π_old is that before the first of them."""
    sequences, metrics = with_old_log_probs(groups, parts)
    training, ranks = parts.job.training, parts.ranks
    count = training.questions_per_batch // training.questions_per_minibatch
    minibatches = [[i for i, s in enumerate(sequences) if s.question % count == m] for m in range(count)]
    reports, losses = [], []
    for _ in range(training.epochs_per_batch):
        for members in filter(None, minibatches):
            minibatch = [sequences[i] for i in members]
            mine = [i for i in parts.objective.trained(minibatch) if members[i] % ranks.world_size == ranks.rank]
            loss = MiniBatchLoss(parts.objective, minibatch, mine)
            report = parts.learner.update(
                [minibatch[i].pair for i in mine],
                loss,
                temperature=parts.sampling.temperature,
                entropy=parts.job.objective.entropy_coefficient > 0,
            )
            reports.append(report)
            losses.append(loss)
    return {**metrics, **update_metrics(reports, losses, ranks)}


def with_old_log_probs(groups: Sequence[TrainGroup], parts: TrainParts) -> tuple[list[TrainSequence], dict[str, float]]:
    """The groups' slots as the objective sees them. Each rank fills in the log-probs of its own sequences.

    π_old is recomputed by the learner; the sampler's log-probs only serve to measure the gap between the two.
    """
    ranks, temperature = parts.ranks, parts.sampling.temperature
    slots = [
        (question, group.group.question, slot, advantage)
        for question, group in enumerate(groups)
        for slot, advantage in zip(group.group.slots, group.advantages, strict=True)
    ]
    pairs = [TokenPair(question.prompt_token_ids, slot.token_ids) for _, question, slot, _ in slots]
    mine = [i for i in ranks.shard(range(len(slots))) if not slots[i][2].off_policy]
    my_pairs = [pairs[i] for i in mine]
    old = dict(zip(mine, parts.learner.logprobs_and_entropies(my_pairs, temperature=temperature), strict=True))
    reference = {}
    if parts.job.objective.kl is not None:
        logprobs = parts.learner.logprobs(my_pairs, temperature=temperature, reference=True)
        reference = dict(zip(mine, logprobs, strict=True))
    sequences = [
        TrainSequence(
            pair=pairs[i],
            question=number,
            advantage=advantage,
            off_policy=slot.off_policy,
            old_log_probs=old[i][0] if i in old else None,
            behaviour_log_probs=recorded_log_probs(slot, parts),
            reference_log_probs=reference.get(i),
            masked=parts.job.objective.on_policy.mask_truncated and slot.truncated,
        )
        for i, (number, _, slot, advantage) in enumerate(slots)
    ]
    sampled = [(rollout, *old[i]) for i in mine if (rollout := slots[i][2].rollout) is not None]
    return sequences, old_policy_metrics(sampled, ranks)


def recorded_log_probs(slot: Slot, parts: TrainParts) -> torch.Tensor | None:
    """log π_φ of a teacher's tokens where the config asks for the recorded ones; None stands for π_φ = 1."""
    if slot.selection is None or parts.job.objective.off_policy.behaviour == "one":
        return None
    return torch.tensor(slot.selection.guidance.logprobs)
