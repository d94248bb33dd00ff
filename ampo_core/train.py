"""The training loop. One step, read top to bottom, is one pass through the hops:

sample → grade → trigger → teacher pool → select → replace → advantages → filter → pack → forward → loss → step → sync

`guidance: null` leaves out trigger to replace, and what remains is GRPO.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random

import torch
from ampo_registry.protocols import Advantage, SelectionContext
from ampo_registry.types import GradeRequest, Question, Rollout, RolloutGroup, RolloutRequest, StepReport

from ampo_core.assemble import TrainParts, assemble
from ampo_core.config.jobs import TrainJob
from ampo_core.data.seeds import derive_seed, sample_seed
from ampo_core.environment import Environment
from ampo_core.guidance import AugmentedGroup, Slot, replace_wrong, select, triggered, unguided
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
    kept: list[AugmentedGroup] = []
    for _ in range(RESAMPLE_ROUNDS if parts.resample else 1):
        questions = parts.take(taken, wanted - len(kept))
        position, taken = len(sampled), taken + len(questions)

        with watch.measure("rollout"):
            rollouts = sample(questions, step, position, parts)
        with watch.measure("reward"):
            groups = grade(questions, rollouts, parts)
        with watch.measure("guidance"):
            guided = guide(groups, step, position, parts)
        guided = [with_advantages(group, parts.advantage) for group in guided]
        sampled, augmented, kept = sampled + groups, augmented + guided, kept + keep_signal(guided, parts)
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
        "groups/sampled": float(len(sampled)),
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
    rollouts = parts.ranks.map(lambda share: parts.engine.generate(share, parts.sampling), requests)
    parts.engine.sleep()
    return rollouts


def grade(
    questions: Sequence[Question], rollouts: Sequence[Sequence[Rollout]], parts: TrainParts
) -> list[RolloutGroup]:
    """Each rollout verified against its question's answer, penalties included."""
    pairs = [(question, rollout) for question, group in zip(questions, rollouts, strict=True) for rollout in group]
    requests = [GradeRequest(rollout.text, question.answer, question.source) for question, rollout in pairs]
    verdicts = parts.ranks.map(parts.grader.grade, requests)
    limit = parts.sampling.max_response_tokens
    grades = iter(
        penalised(verdict, rollout, parts.job.reward, limit)
        for verdict, (_, rollout) in zip(verdicts, pairs, strict=True)
    )
    return [
        RolloutGroup(question, tuple(group), tuple(islice(grades, len(group))), parts.threshold)
        for question, group in zip(questions, rollouts, strict=True)
    ]


def guide(groups: Sequence[RolloutGroup], step: int, position: int, parts: TrainParts) -> list[AugmentedGroup]:
    """Triggered groups get teacher answers in place of wrong rollouts (Eq. 3 to 5); all others pass unchanged."""
    guidance = parts.guidance
    if guidance is None:
        return [unguided(group) for group in groups]
    fired = triggered(groups, guidance.trigger, step)
    selections = select(
        [groups[i] for i in fired],
        guidance.library.candidates([groups[i].question for i in fired]),
        [position + i for i in fired],
        guidance.selector,
        replacements=guidance.config.replacements,
        seed=parts.seed,
        context=SelectionContext(guidance.scorer, step),
    )
    chosen = dict(zip(fired, selections, strict=True))
    return [
        replace_wrong(
            group,
            chosen[i],
            Random(derive_seed("replacement", parts.seed, step, position + i)),
            teacher_reward=guidance.config.teacher_reward,
        )
        if i in chosen
        else unguided(group)
        for i, group in enumerate(groups)
    ]


def with_advantages(group: AugmentedGroup, advantage: Advantage) -> AugmentedGroup:
    """The group with the advantage of each slot (Eq. 1 and 6): tensors begin here."""
    advantages = advantage.advantages(
        torch.tensor([slot.reward for slot in group.slots], dtype=torch.float64),
        torch.tensor([slot.correct for slot in group.slots]),
        torch.tensor([slot.off_policy for slot in group.slots]),
    )
    return replace(group, advantages=tuple(advantages.tolist()))


def keep_signal(groups: Sequence[AugmentedGroup], parts: TrainParts) -> list[AugmentedGroup]:
    """The groups that the group filter leaves; it comes after guidance, or it would drop what guidance rescued."""
    filtered = parts.job.objective.group_filter
    if filtered is None:
        return list(groups)
    unwanted = [{"all_correct": {True}, "all_wrong": {False}}[kind] for kind in filtered.drop]
    return [group for group in groups if {slot.correct for slot in group.slots} not in unwanted]


def update(groups: Sequence[AugmentedGroup], parts: TrainParts) -> dict[str, float]:
    """One optimizer step for each mini-batch and epoch, and their metrics. π_old is that before the first of them."""
    sequences, metrics = with_old_log_probs(groups, parts)
    training, ranks = parts.job.training, parts.ranks
    count = training.questions_per_batch // training.questions_per_minibatch
    minibatches = [[i for i, s in enumerate(sequences) if s.group % count == m] for m in range(count)]
    reports, losses = [], []
    for _ in range(training.epochs_per_batch):
        for members in minibatches:
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


def with_old_log_probs(
    groups: Sequence[AugmentedGroup], parts: TrainParts
) -> tuple[list[TrainSequence], dict[str, float]]:
    """The groups' slots as the objective sees them. Each rank fills in the log-probs of its own sequences.

    π_old is recomputed by the learner; the sampler's log-probs only serve to measure the gap between the two.
    """
    temperature, objective = parts.sampling.temperature, parts.job.objective
    sequences = [
        TrainSequence(
            pair=TokenPair(group.question.prompt_token_ids, slot.token_ids),
            group=number,
            advantage=advantage,
            off_policy=slot.off_policy,
            behaviour_log_probs=recorded_log_probs(slot) if objective.off_policy.behaviour == "recorded" else None,
            masked=objective.on_policy.mask_truncated and slot.truncated,
        )
        for number, group in enumerate(groups)
        for slot, advantage in zip(group.slots, group.advantages, strict=True)
    ]
    mine = [i for i in parts.ranks.shard(range(len(sequences))) if not sequences[i].off_policy]
    pairs = [sequences[i].pair for i in mine]
    old = parts.learner.logprobs_and_entropies(pairs, temperature=temperature)
    reference: list[torch.Tensor | None] = [None] * len(mine)
    if objective.kl is not None:
        reference = list(parts.learner.logprobs(pairs, temperature=temperature, reference=True))
    for i, (log_probs, _), start in zip(mine, old, reference, strict=True):
        sequences[i] = replace(sequences[i], old_log_probs=log_probs, reference_log_probs=start)
    slots = [slot for group in groups for slot in group.slots]
    sampled = [(rollout, *stats) for i, stats in zip(mine, old, strict=True) if (rollout := slots[i].rollout)]
    return sequences, old_policy_metrics(sampled, parts.ranks)


def recorded_log_probs(slot: Slot) -> torch.Tensor | None:
    """log π_φ of a teacher's tokens as its data recorded them, [response tokens]; None for a rollout."""
    return None if slot.selection is None else torch.tensor(slot.selection.guidance.logprobs)
