"""The first questions of a train job, through the hops of its first step up to the intervention.

Every number comes from the functions of the loop, with the seeds of step 1. A batch of another size than the run's, and
another number of devices, may round differently in the sampler: with as many questions as the run's batch, on one
device, the responses are the run's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ampo_registry.samples import Sample
from ampo_registry.specs import component_name
from ampo_registry.step import Scorer, StepContext
from ampo_registry.types import Guidance, Question, RolloutGroup

from ampo_core.config.jobs import TrainJob
from ampo_core.jobs.sample.document import SIGNS, Part, Text, answered, asked, code, listed, plain, verdict, yes
from ampo_core.loop.assemble import assemble_sampling
from ampo_core.loop.groups import GuidedQuestion
from ampo_core.loop.guidance import Guide
from ampo_core.loop.metrics import guidance_metrics, rollout_metrics
from ampo_core.loop.parts import SamplingParts
from ampo_core.report.markdown import table
from ampo_core.report.watch import Watch
from ampo_core.run.environment import Environment
from ampo_core.run.folder import POLICY_SOURCE
from ampo_core.train import guide

FIRST = 1
"""The step whose seeds are used."""


@dataclass(slots=True)
class Overheard:
    """Passes what a selector asks on to `scorer`, and remembers what it answered, by question and answer."""

    scorer: Scorer
    heard: dict[tuple[str, int], list[float]] = field(default_factory=dict)

    def answer_logprobs(self, items: Sequence[tuple[Question, Guidance]]) -> list[list[float]]:
        """`Scorer.answer_logprobs`."""
        found = self.scorer.answer_logprobs(items)
        pairs = zip(items, found, strict=True)
        self.heard |= {(question.uid, id(guidance)): values for (question, guidance), values in pairs}
        return found


@dataclass(frozen=True, slots=True)
class Seen:
    """A question after the hops, and all usable answers to it with what the selector says of each."""

    group: RolloutGroup
    guided: GuidedQuestion
    candidates: tuple[Guidance, ...] = ()
    scores: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class First:
    """The first questions, the metrics that a step of them has, and the log-probs that the selector asked for."""

    questions: list[Seen]
    metrics: dict[str, float]
    heard: Mapping[tuple[str, int], list[float]]


def first_hops(parts: SamplingParts, count: int) -> First:
    """Sample, grade and guide the first `count` questions of the run's order, as its first step does."""
    overheard = Overheard(parts.guide.scorer) if parts.guide else None
    context = parts.services.begin(FIRST, overheard)
    questions = parts.questions.take(0, count)
    groups = parts.sampler.grade(questions, parts.sampler.sample(questions, FIRST, 0), context)
    found = guide(groups, 0, parts.guide, context)
    again, known = parts.services.generated, parts.sampler.known_ids
    metrics = rollout_metrics(groups, again, policy_version=0, known_ids=known) | parts.sampler.take_counts()
    metrics["groups/sampled"] = float(count)
    seen = [Seen(*pair) for pair in zip(groups, found.questions, strict=True)]
    if parts.guide is not None:
        metrics |= guidance_metrics(found.questions) | parts.guide.take_counts()
        seen = _with_candidates(seen, parts.guide, context)
    return First(seen, metrics, overheard.heard if overheard else {})


def without_repeats(places: Sequence[int]) -> int:
    """How many of `places` come before one comes again."""
    return next((number for number, place in enumerate(places) if place in places[:number]), len(places))


def parts_of(job: TrainJob, environment: Environment, count: int) -> Iterator[Part]:
    """The first `count` questions of the run's order, a part at a time."""
    with assemble_sampling(job, environment) as parts:
        asked_for, count = count, without_repeats(parts.questions.order.take(0, count))
        first = first_hops(parts, count)
        watch = Watch("train", environment.config)
        watch.see(FIRST, first.metrics)
        yield from _head(job, parts, count)
        if count < asked_for:
            yield f"--sample {asked_for}: no more than these are shown, for then questions come again."
        yield from listed(SIGNS, (f"{w.what}; look at {w.look}" for w in watch.warnings(finished=True)))
        yield from listed("Said of data and tokens", parts.notes)
        for number, one in enumerate(first.questions, start=1):
            yield f"## Question {number} of {count}"
            yield from asked(one.group.question, parts.tokenizer)
            pairs = zip(one.group.rollouts, one.group.grades, strict=True)
            yield from answered([
                (grade, len(rollout.token_ids), rollout.finish_reason, parts.tokenizer.shown(rollout.token_ids))
                for rollout, grade in pairs
            ])  # fmt: skip
            if parts.guide is not None:
                yield from _guidance(one, parts.guide, first.heard)
                yield from _intervened(job, one, parts)


def _with_candidates(seen: Sequence[Seen], guide: Guide, context: StepContext) -> list[Seen]:
    """With the candidates of all questions, guided or not; a pool that is asked in the step has those of the guided."""
    groups = [one.group for one in seen]
    late = guide.library.late is not None
    candidates = [one.guided.candidates for one in seen] if late else guide.candidates(groups, context)
    ranked = guide.ranked(groups, candidates, range(len(groups)), context)
    found = []
    for one, usable, selections in zip(seen, candidates, ranked, strict=True):
        score = {id(selection.guidance): selection.score for selection in selections}
        found.append(Seen(one.group, one.guided, usable, tuple(score.get(id(answer)) for answer in usable)))
    return found


def _head(job: TrainJob, parts: SamplingParts, count: int) -> Iterator[Part]:
    tokenizer, rollout, size = parts.tokenizer, job.rollout, job.training.questions_per_batch
    stops = " or ".join(code(tokenizer.shown([token])) for token in tokenizer.stop_token_ids)
    same, every = count == size and job.resources.devices * job.resources.nodes == 1, len(parts.questions.all)
    yield f"# {count} of {every} training question{'s' if every > 1 else ''}, in the run's order"
    yield (
        f"{code(job.model.path)}, sampled by {component_name(type(rollout))}: {rollout.group_size} responses a "
        f"question at temperature {rollout.temperature:g}, at most {rollout.max_response_tokens} tokens, ended by "
        f"{stops}. Seeds are those of step 1 of the run (run.seed {job.run.seed}), whose batch has {size} questions: "
        + (
            "its responses are these."
            if same
            else "its own responses may differ, for another batch rounds differently."
        )
    )


def _guidance(one: Seen, guide: Guide, heard: Mapping[tuple[str, int], list[float]]) -> Iterator[Part]:
    name, wrong, size = component_name(type(guide.config.trigger)), len(one.group.wrong), len(one.group.rollouts)
    yield "### Guidance"
    yield (
        f"The trigger {code(name)} {'fires' if one.guided.triggered else 'does not fire'}: {wrong} of {size} responses "
        f"are wrong (reward below {one.group.threshold:g}, or no verdict)."
    )
    if guide.library.late is None:
        yield from listed("Answers left out", (f"{t}: {why}" for t, why in guide.library.left_out(one.group.question)))
    if not one.candidates:
        yield "No teacher answer can be used."
        return
    chosen = {id(selection.guidance): place for place, selection in enumerate(one.guided.selections, start=1)}
    rows = [
        (str(number), plain(c.teacher), str(len(c.token_ids)), f"{c.grade.reward:g}", yes(c.grade.formatted),
         _number(score), str(chosen.get(id(c), "")))
        for number, (c, score) in enumerate(zip(one.candidates, one.scores, strict=True), start=1)
    ]  # fmt: skip
    selector = component_name(type(guide.config.selector))
    yield table(("candidate", "teacher", "tokens", "reward", "format", f"score ({selector})", "chosen as"), rows)
    for number, candidate in enumerate(one.candidates, start=1):
        yield from _candidate(number, candidate, one.group.question, guide, heard)


def _candidate(
    number: int, candidate: Guidance, question: Question, guide: Guide, heard: Mapping[tuple[str, int], list[float]]
) -> Iterator[Part]:
    """A teacher's answer; where the selector has it scored by the policy, in the form that was scored."""
    values, whose = heard.get((question.uid, id(candidate))), f"Candidate {number}, of {plain(candidate.teacher)}"
    if not values:
        yield whose + ("" if values is None else ": it cannot be scored")
        yield Text(candidate.text)
        return
    trajectory = guide.scorer.trajectory(question, candidate)
    assert trajectory is not None
    truth = trajectory.text[trajectory.start : trajectory.end]
    mean = math.fsum(values) / len(values)
    each = ", ".join(f"{value:.3g}" for value in values)
    yield (
        f"{whose}, with the true answer {code(truth)} in the place of its own, as it is scored: log-probs "
        f"{each} of the answer's tokens, exp(mean) = {math.exp(mean):.4f}"
    )
    yield Text(trajectory.text)


def _intervened(job: TrainJob, one: Seen, parts: SamplingParts) -> Iterator[Part]:
    """What the group is trained with, where it was guided, and what the student wrote for that."""
    if job.guidance is None or not one.guided.triggered:
        return
    samples = (*one.guided.samples, *one.guided.extra)
    rows = [
        (str(number), _source(sample), f"{sample.reward:g}", verdict(sample.grade),
         ", ".join(f"{tokens} {term or 'context'}" for term, tokens in sample.segments))
        for number, sample in enumerate(samples, start=1)
    ]  # fmt: skip
    yield f"### What {component_name(type(job.guidance.intervention))} makes of the group"
    yield table(("sample", "source", "reward", "verdict", "tokens trained as"), rows)
    sampled = {id(rollout) for rollout in one.group.rollouts}
    for number, sample in enumerate(samples, start=1):
        if sample.rollout is not None and id(sample.rollout) not in sampled:
            read = sample.rollout.prompt_token_ids or sample.prompt_token_ids
            yield f"Sample {number} was written after"
            yield Text(parts.tokenizer.shown(read))
            yield "and is"
            yield Text(parts.tokenizer.shown(sample.rollout.token_ids))


def _source(sample: Sample) -> str:
    written = POLICY_SOURCE if sample.rollout is not None else ""
    teacher = sample.selection.guidance.teacher if sample.selection is not None else ""
    return plain(" after ".join(filter(None, (written, teacher))))


def _number(score: float | None) -> str:
    return "" if score is None else f"{score:.4f}"
