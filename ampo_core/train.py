"""The training loop. One step, read top to bottom, is one pass through the hops:

sample → grade → trigger → teacher pool → select → replace → advantages → filter → pack → forward → loss → step → sync

`guidance: null` leaves out trigger to replace, and what remains is GRPO.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random

import torch
from ampo_registry.errors import RunError
from ampo_registry.protocols import Advantage, SelectionContext
from ampo_registry.types import GradeRequest, Question, Rollout, RolloutGroup, RolloutRequest, StepReport

from ampo_core.config.jobs import TrainJob
from ampo_core.data.seeds import derive_seed, sample_seed
from ampo_core.grading.penalties import penalised
from ampo_core.learner.checkpoint import Position
from ampo_core.loop.ahead import SampledBatch
from ampo_core.loop.assemble import assemble
from ampo_core.loop.guidance import AugmentedGroup, Slot, replace_wrong, select, triggered, unguided
from ampo_core.loop.metrics import (
    Stopwatch,
    group_report,
    guidance_metrics,
    old_policy_metrics,
    rollout_metrics,
    update_metrics,
)
from ampo_core.loop.objective import MiniBatchLoss
from ampo_core.loop.parts import TrainParts
from ampo_core.loop.sequences import (
    MEASURED,
    is_stale,
    measured,
    share_of,
    train_sequences,
    with_old_log_probs,
    with_reference,
)
from ampo_core.run.environment import Environment
from ampo_core.run.interrupt import Interrupt

RESAMPLE_ROUNDS = 10
"""With `group_filter.resample`, a step samples at most this many times before it trains on what it has."""


def run(job: TrainJob, environment: Environment) -> Path:
    """Train as `job` says; returns the final policy folder. Nothing has started when bad input is refused."""
    with assemble(job, environment) as parts:
        parts.reporter.started()
        position = first_position(parts)
        with Interrupt() as interrupt:
            for step in range(position.step + 1, job.training.steps + 1):
                report, taken = train_step(step, position.taken, parts)
                position = Position(step, taken, policy_version=step)
                evaluation = parts.evaluator.after(step)
                parts.reporter.stepped(report, position, parts.learner, interrupt, parts, evaluation)
        return parts.reporter.finished()


def first_position(parts: TrainParts) -> Position:
    """Where the run stands: at its start, or where its checkpoint was written, with all that put back."""
    checkpoint = parts.reporter.checkpoint
    position = Position() if checkpoint is None else checkpoint.load(parts.learner, parts)
    # At a start too: the first step then compares sampler and learner after a sync like all others.
    parts.engine.load_weights(parts.learner.weights(), policy_version=position.policy_version)
    if checkpoint is None:
        parts.reporter.evaluated(0, parts.evaluator.at_start())
    else:
        checkpoint.restore_rng()
    return position


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
            requests = rollout_requests(questions, step, position, parts)
            batch = parts.ahead.take(questions, requests) or sample(requests, parts)
        with watch.measure("reward"):
            groups = grade(questions, batch, parts)
        with watch.measure("guidance"):
            guided = guide(groups, step, position, parts)
        guided = [with_advantages(group, parts.advantage) for group in guided]
        sampled, augmented, kept = sampled + groups, augmented + guided, kept + keep_signal(guided, parts)
        if len(kept) == wanted:
            break

    if parts.job.rollout.ahead and step < parts.job.training.steps:
        sample_ahead(parts.take(taken, wanted), step + 1, parts)
    with watch.measure("update"):
        policy_metrics = update(kept, step, parts)
    with watch.measure("rollout"):
        parts.ahead.wait()
    with watch.measure("sync"):
        parts.engine.load_weights(parts.learner.weights(), policy_version=step)

    metrics = {
        **rollout_metrics(sampled, policy_version=step - 1),
        **(guidance_metrics(augmented) if parts.guidance else {}),
        **policy_metrics,
        **parts.counted(),
        "groups/sampled": float(len(sampled)),
        "groups/trained": float(len(kept)),
        **watch.metrics(),
    }
    return StepReport(step, metrics, tuple(group_report(group) for group in augmented)), taken


def sample(requests: Sequence[RolloutRequest], parts: TrainParts) -> SampledBatch:
    """G rollouts of each question."""
    parts.engine.wake()
    rollouts = parts.ranks.map(lambda share: parts.engine.generate(share, parts.sampling), requests)
    parts.engine.sleep()
    return SampledBatch(rollouts)


def sample_ahead(questions: Sequence[Question], step: int, parts: TrainParts) -> None:
    """Begin to sample and grade the batch of the next step `step`, with the weights that the sampler has now."""
    share = parts.ranks.shard(questions)
    requests = parts.ranks.shard(rollout_requests(questions, step, 0, parts))

    def work() -> SampledBatch:
        parts.engine.wake()
        rollouts = parts.engine.generate(requests, parts.sampling)
        parts.engine.sleep()
        verdicts = iter(parts.grader.grade(grade_requests(share, rollouts)))
        return SampledBatch(rollouts, [list(islice(verdicts, len(group))) for group in rollouts])

    parts.ahead.start(share, requests, work)


def rollout_requests(
    questions: Sequence[Question], step: int, position: int, parts: TrainParts
) -> list[RolloutRequest]:
    """What the sampler is asked for: each prompt with the seeds of its G samples. A seed is a function of (run seed,
    step, position, sample)."""
    return [
        RolloutRequest(
            question.prompt_token_ids,
            tuple(sample_seed(parts.seed, step, position + i, s) for s in range(parts.job.rollout.group_size)),
        )
        for i, question in enumerate(questions)
    ]


def grade_requests(questions: Sequence[Question], rollouts: Sequence[Sequence[Rollout]]) -> list[GradeRequest]:
    """What the verifier is asked: each rollout against its question's answer."""
    return [
        GradeRequest(rollout.text, question.answer, question.source)
        for question, group in zip(questions, rollouts, strict=True)
        for rollout in group
    ]


def grade(questions: Sequence[Question], batch: SampledBatch, parts: TrainParts) -> list[RolloutGroup]:
    """Each rollout verified, unless it was graded ahead, penalties included."""
    if batch.verdicts is None:
        verdicts = parts.ranks.map(parts.grader.grade, grade_requests(questions, batch.rollouts))
    else:
        verdicts = [verdict for group in batch.verdicts for verdict in group]
    limit = parts.sampling.max_response_tokens
    rollouts = (rollout for group in batch.rollouts for rollout in group)
    grades = iter(
        penalised(verdict, rollout, parts.job.reward, limit)
        for verdict, rollout in zip(verdicts, rollouts, strict=True)
    )
    return [
        RolloutGroup(question, tuple(group), tuple(islice(grades, len(group))), parts.threshold)
        for question, group in zip(questions, batch.rollouts, strict=True)
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


def update(groups: Sequence[AugmentedGroup], step: int, parts: TrainParts) -> dict[str, float]:
    """One optimizer step for each mini-batch and epoch, and their metrics. π_old is that before the first of them.

    Each rank forwards its share of every mini-batch, dealt out by tokens; the loss sees the whole mini-batch.
    """
    training, objective = parts.job.training, parts.objective
    count = training.questions_per_batch // training.questions_per_minibatch
    sequences, slots = train_sequences(groups, step, parts)
    minibatches = [[i for i, s in enumerate(sequences) if s.group % count == m] for m in range(count)]
    entropy_gradient = parts.job.objective.entropy_coefficient > 0
    # A batch's only update needs no pass of its own for π_old: it is the policy of that very forward.
    only = count * training.epochs_per_batch == 1
    trained = {members[j] for members in minibatches for j in objective.trained([sequences[i] for i in members])}
    shares = [share_of(members, trained, sequences, parts.ranks) for members in minibatches]
    mine = [i for share in shares for i in share]
    counted = {i: 1 if i in trained or step == 1 else MEASURED for i in mine if i in trained or measured(i, step)}
    sequences, old = with_old_log_probs(sequences, [i for i in counted if not only or i not in trained], parts)
    sequences = with_reference(sequences, [i for i in mine if i in trained], parts)
    reports, losses = [], []
    for _ in range(training.epochs_per_batch):
        for members, share in zip(minibatches, shares, strict=True):
            chosen = [i for i in share if i in trained]
            place = {i: j for j, i in enumerate(members)}
            loss = MiniBatchLoss(objective, [sequences[i] for i in members], [place[i] for i in chosen], first=only)
            report = parts.learner.update(
                [sequences[i].pair for i in chosen],
                loss,
                temperature=parts.sampling.temperature,
                entropy=only or entropy_gradient,
                entropy_gradient=entropy_gradient,
            )
            reports.append(report)
            losses.append(loss)
            if only:
                old |= {chosen[j]: values for j, values in loss.forwarded.items()}
    seen = [(weight, rollout, *old[i]) for i, weight in counted.items() if (rollout := slots[i].rollout) is not None]
    metrics = old_policy_metrics(seen, parts.ranks)
    check_parity(metrics, slots, step, parts)
    return {**metrics, **update_metrics(reports, losses, parts.ranks)}


def check_parity(metrics: Mapping[str, float], slots: Sequence[Slot], step: int, parts: TrainParts) -> None:
    """Raise RunError if sampler and learner give the same tokens other probabilities than the config allows.

    Rollouts of an older policy say nothing about that.
    """
    limit, gap = parts.gap_limit, metrics.get("policy/rollout_logprob_gap")
    if limit is None or gap is None or gap <= limit or any(is_stale(slot, step) for slot in slots):
        return
    raise RunError(
        f"step {step}: the rollout's log-probs differ from the learner's by {gap:.4g} nats a token on average, more "
        f"than rollout.logprob_gap_limit {limit:g} allows: the sampler has other weights, another precision or other "
        "sampling options than the learner trains with"
    )
