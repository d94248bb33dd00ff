"""The training loop. One step, read top to bottom:

    questions ── sample ×G ── grade ─┬─ trigger ── teacher answers ── select ─ intervene ┐
                                     └───────────────── groups that pass ────────────────┤
                                                                                         ▼
    sync ◄── optimizer step ◄── loss ◄── forward ◄── pack ◄── π_old ◄── filter ◄── advantages
      │
      └── the engine's copy of the weights; the next step samples with it

`guidance: null` leaves out trigger to intervene, and what remains is GRPO. `loop/` has the hops, each beside what
builds it; `loop/assemble.py` builds all of them, in an order in which bad input is refused before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ampo_registry.samples import Sample
from ampo_registry.step import StepContext
from ampo_registry.types import RolloutGroup, StepReport

from ampo_core.config.jobs import TrainJob
from ampo_core.learner.checkpoint import Position
from ampo_core.loop.assemble import assemble
from ampo_core.loop.credit import with_advantages
from ampo_core.loop.groups import GuidedBatch, GuidedQuestion, unguided
from ampo_core.loop.guidance import Guide
from ampo_core.loop.metrics import (
    Stopwatch,
    group_metrics,
    group_report,
    guidance_metrics,
    rollout_metrics,
    update_metrics,
)
from ampo_core.loop.minibatch_loss import MiniBatchLoss, faults_of
from ampo_core.loop.old_policy import check_parity, fill_in, old_policy_metrics, plan_forwards, with_old_log_probs
from ampo_core.loop.parts import TrainParts, UpdateParts
from ampo_core.loop.sequences import minibatches, train_sequences
from ampo_core.run.environment import Environment
from ampo_core.run.interrupt import Interrupt


def run(job: TrainJob, environment: Environment) -> Path:
    """Train as `job` says; returns the final policy folder. Nothing has started when bad input is refused."""
    with assemble(job, environment) as parts:
        parts.reporter.started()
        position = first_position(parts)
        with Interrupt() as interrupt:
            for step in range(position.step + 1, parts.steps + 1):
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
    watch, context = Stopwatch(), parts.begin(step)
    sampled, guided = list[RolloutGroup](), list[GuidedQuestion]()
    extra: list[Sample] = []
    kept: list[int] = []
    while count := parts.group_filter.wants(len(sampled), len(kept)):
        questions, position = parts.questions.take(taken + len(sampled), count), len(sampled)
        with watch.measure("rollout"):
            parts.update.judges.sleep()
            batch = parts.sampler.sample(questions, step, position)
        with watch.measure("reward"):
            groups = parts.sampler.grade(questions, batch, context)
        with watch.measure("guidance"):
            found = guide(groups, position, parts.guide, context)
        guided, extra = [*guided, *found.questions], [*extra, *found.extra]
        sampled, kept = sampled + groups, parts.group_filter.keep(guided)
    taken += parts.group_filter.used(kept, len(sampled))
    with watch.measure("credit"):
        guided = with_advantages(guided, parts.advantage, context, parts.update.ranks)

    if parts.ahead and step < parts.steps:
        parts.sample_ahead(step + 1, taken)
    trained = GuidedBatch(tuple(parts.group_filter.trained(guided[i]) for i in kept), tuple(extra))
    with watch.measure("update"):
        policy_metrics = update(trained, parts.update, context, parts.reporter.note)
    parts.update.judges.sleep()
    with watch.measure("rollout"):
        parts.sampler.ahead.wait()
    with watch.measure("sync"):
        parts.engine.load_weights(parts.learner.weights(), policy_version=step)
        if parts.ahead:
            policy_metrics |= parts.probe.after(step, [group.question for group in sampled])
    if not kept and not extra:
        parts.reporter.note(f"step {step}: none of {len(sampled)} groups has a signal, so nothing was trained")

    metrics = {
        **rollout_metrics(
            sampled, parts.services.generated, policy_version=step - 1, known_ids=parts.sampler.known_ids
        ),
        **(guidance_metrics(guided, trained.beside(parts.update.terms(context))) if parts.guide else {}),
        **policy_metrics,
        **parts.take_counts(),
        **group_metrics(len(sampled), trained),
        **parts.services.logged(),
        **watch.metrics(),
    }
    parts.finish(step, metrics, sampled, guided, kept)
    return StepReport(step, metrics, tuple(group_report(question) for question in guided)), taken


def guide(groups: Sequence[RolloutGroup], position: int, parts: Guide | None, context: StepContext) -> GuidedBatch:
    """The groups that need it are guided by teacher answers (Eq. 3 to 5); all others pass unchanged.

    `position` is the first group's place in the batch.
    """
    if parts is None:
        return GuidedBatch(tuple(unguided(group) for group in groups))
    fired = parts.triggered(groups, context)
    asked = parts.asked(groups, fired)
    candidates = parts.candidates([groups[i] for i in asked], context)
    places, needy = [position + i for i in asked], set(fired)
    selections = parts.select([groups[i] for i in asked], candidates, places, [i in needy for i in asked], context)
    guidance = dict(zip(asked, zip(candidates, selections, strict=True), strict=True))
    return parts.intervene(groups, guidance, fired, position, context)


def update(
    batch: GuidedBatch, parts: UpdateParts, context: StepContext, note: Callable[[str, str], None]
) -> dict[str, float]:
    """One optimizer step for each mini-batch and epoch, and their metrics. π_old is the policy before the first.

    Each rank forwards its share of every mini-batch; the loss sees the whole mini-batch. `note` is told of losses that
    are not finite, and whose they are.
    """
    learner, temperature, training = parts.learner, parts.temperature, parts.training
    objective = parts.objective.at(context)
    sequences = train_sequences(batch, context.step, objective.config, objective.needs, parts.judges.known)
    batches = minibatches(sequences, training.questions_per_minibatch)
    plan = plan_forwards(sequences, batches, objective, context.step, parts.ranks)
    sequences, forwarded = with_old_log_probs(sequences, plan.before, learner, temperature)
    for judge, terms in objective.judges.items():
        mine = [i for share in plan.updates for i in share]
        sequences = parts.judges.fill_in(sequences, judge, mine, terms)

    reports, losses = [], []
    entropy_gradient = objective.entropy_coefficient > 0 or "entropy" in objective.needs
    rounds = [number for _ in range(training.epochs_per_batch) for number in range(len(batches))]
    rate = parts.learning_rate_at(context.step)
    for done, number in enumerate(rounds):
        members, mine, first = batches[number], plan.updates[number], done == 0
        rate = parts.learning_rate_at(context.step, done, len(rounds))
        place = {i: j for j, i in enumerate(members)}
        loss = MiniBatchLoss(objective, [sequences[i] for i in members], [place[i] for i in mine], first=first)
        report = learner.update(
            [sequences[i].pair for i in mine],
            loss,
            learning_rate=rate,
            temperature=temperature,
            entropy=first or entropy_gradient,
            entropy_gradient=entropy_gradient,
            explain=loss.explain,
        )
        if first:
            own = {mine[j]: values for j, values in loss.forwarded.items()}
            sequences, forwarded = fill_in(sequences, own), forwarded | own
        reports.append(report)
        losses.append(loss)
    for fault in faults_of(losses, parts.ranks):
        note(f"step {context.step}: {fault.text}", fault.who)
    metrics = old_policy_metrics(sequences, plan.counts, forwarded, parts.ranks)
    check_parity(metrics.get("policy/rollout_logprob_gap"), parts.gap_limit, context.step, sequences)
    return {**metrics, **update_metrics(reports, losses, parts.ranks, rate)}
