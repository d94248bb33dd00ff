"""A step's metrics, by the names of the contract (docs/loop.md explains each)."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean

import numpy
from ampo_registry.samples import OFF_POLICY, ON_POLICY, Sample
from ampo_registry.tokens import TokenIds
from ampo_registry.types import GroupReport, RolloutGroup

from ampo_core.distributed.ranks import Ranks
from ampo_core.grading.numbers import mean_numbers
from ampo_core.learner.learner import UpdateReport
from ampo_core.loop.groups import GuidedBatch, GuidedQuestion
from ampo_core.loop.minibatch_loss import MiniBatchLoss
from ampo_core.run.folder import POLICY_SOURCE


class Stopwatch:
    """Seconds spent in each named part of a step."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the time spent inside to `time/NAME_s`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - started

    def metrics(self) -> dict[str, float]:
        """`time/NAME_s` for each part and `time/step_s` for all."""
        parts = {f"time/{name}_s": seconds for name, seconds in self._seconds.items()}
        return {**parts, "time/step_s": time.perf_counter() - self._started}


def rollout_metrics(
    groups: Sequence[RolloutGroup], again: int = 0, *, policy_version: int, known_ids: int
) -> dict[str, float]:
    """Rewards, lengths, counts and the reward's own numbers of the sampled rollouts, before any was replaced, and by
    how many versions the current policy is newer than the one that sampled them. The tokenizer knows the ids below
    `known_ids`; `again` are the tokens of second generations, which count as generated and in nothing else."""
    grades = [grade for group in groups for grade in group.grades]
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    lengths = [len(rollout.token_ids) for rollout in rollouts]
    return {
        "reward/mean": fmean(grade.reward for grade in grades),
        "reward/max": max(grade.reward for grade in grades),
        "reward/accuracy": fmean(grade.correct for grade in grades),
        "reward/format": fmean(grade.formatted for grade in grades),
        "response/length_mean": fmean(lengths),
        "response/truncated": fmean(rollout.finish_reason == "length" for rollout in rollouts),
        "response/unknown_tokens": float(sum(unknown_tokens(rollout.token_ids, known_ids) for rollout in rollouts)),
        "rollout/staleness": fmean(policy_version - rollout.policy_version for rollout in rollouts),
        "tokens/generated": float(sum(lengths) + again),
        **mean_numbers(grades),
    }


def unknown_tokens(token_ids: TokenIds, known_ids: int) -> int:
    """How many of `token_ids` the tokenizer does not know: the head of many models has more rows than it has tokens."""
    return int(numpy.count_nonzero(numpy.asarray(token_ids.buffer) >= known_ids))


def guidance_metrics(questions: Sequence[GuidedQuestion], beside: Sequence[Sample] = ()) -> dict[str, float]:
    """How often guidance was needed and whose it was. Shares of teachers are of all answers in the groups, and of those
    among the samples `beside` them that auxiliary terms train in this step."""
    groups = [sample for question in questions for sample in question.samples]
    guided = [(sample, chosen) for sample in (*groups, *beside) if (chosen := sample.selection) is not None]
    selections = [selection for _, selection in guided]
    scores = [selection.score for selection in selections if selection.score is not None]
    teachers = Counter(selection.guidance.teacher for selection in selections)
    return {
        "guidance/triggered": fmean(question.triggered for question in questions),
        "guidance/replaced": sum(sample.selection is not None for sample in groups) / len(questions),
        **({"guidance/format": fmean(s.guidance.grade.formatted for s in selections)} if selections else {}),
        **({"guidance/score_mean": fmean(scores)} if scores else {}),
        **{f"guidance/answers/{name}": float(count) for name, count in sorted(teachers.items())},
        **{f"guidance/teacher/{name}": count / len(selections) for name, count in sorted(teachers.items())},
        "tokens/teacher": float(sum(_written_by_teacher(sample) for sample, _ in guided)),
    }


def _written_by_teacher(sample: Sample) -> int:
    return len(sample.token_ids) - (0 if sample.rollout is None else len(sample.rollout.token_ids))


def group_metrics(sampled: int, batch: GuidedBatch) -> dict[str, float]:
    """How many groups were sampled, how many of `batch` are trained on, and how many of these have an advantage."""
    trained = [group for question in batch.questions for group in question.groups]
    return {
        "groups/sampled": float(sampled),
        "groups/trained": float(len(trained)),
        "groups/with_signal": float(sum(group.has_signal for group in trained)),
    }


def update_metrics(
    reports: Sequence[UpdateReport], losses: Sequence[MiniBatchLoss], ranks: Ranks, learning_rate: float
) -> dict[str, float]:
    """Means over the step's optimizer updates; token counts are sums over updates and ranks. `learning_rate` is that of
    the last update, or where there was none that which the step would have begun with."""
    if not reports:
        return {"policy/learning_rate": learning_rate, "tokens/trained": 0.0, "tokens/padding": 0.0}
    total = _added(_added(each) for each in ranks.each([loss.sums() for loss in losses]))
    tokens = _added(loss.tokens for loss in losses)
    weighed = sum(ranks.each(sum(loss.weighed_tokens for loss in losses)))
    skipped = sum(report.skipped for report in reports)
    norms = [report.grad_norm for report in reports if report.tokens and not report.skipped]
    return {
        "policy/loss": total.get("loss", 0.0) / len(reports),
        "policy/loss_on": total.get(f"loss/{ON_POLICY}", 0.0) / len(reports),
        "policy/loss_off": total.get(f"loss/{OFF_POLICY}", 0.0) / len(reports),
        **{f"policy/loss/{name}": total.get(f"loss/{name}", 0.0) / len(reports) for name in tokens},
        "policy/clip_fraction": 0.0,
        **_measured(total, tokens),
        "policy/grad_norm": fmean(norms) if norms else math.nan if skipped else 0.0,
        "policy/empty_updates": float(sum(not report.tokens for report in reports)),
        "policy/skipped_updates": float(skipped),
        "policy/learning_rate": learning_rate,
        **({"policy/importance_weight": total["importance"] / weighed} if weighed else {}),
        "tokens/trained": float(sum(report.tokens for report in reports)),
        "tokens/padding": float(sum(report.padding for report in reports)),
    }


def _added(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The sums of `parts` by name."""
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + value
    return total


def _measured(total: Mapping[str, float], tokens: Mapping[str, float]) -> dict[str, float]:
    """What losses measured, NAME/TERM in `total`, as means over the term's tokens."""
    found = {}
    for key, value in total.items():
        name, _, term = key.rpartition("/")
        if term in tokens and name != "loss":
            found[f"policy/{name}" if term == ON_POLICY else f"policy/{name}/{term}"] = value / max(tokens[term], 1)
    return found


def group_report(question: GuidedQuestion) -> GroupReport:
    """The question as observers and samples.jsonl see it."""
    samples = (*question.samples, *question.extra, *question.answers)
    selections = [sample.selection for sample in samples]
    teachers = [
        None if chosen is None or not _written_by_teacher(sample) else chosen.guidance.teacher
        for sample, chosen in zip(samples, selections, strict=True)
    ]
    return GroupReport(
        question=question.question,
        texts=tuple(sample.text for sample in samples),
        rewards=tuple(sample.reward for sample in samples),
        sources=tuple(teacher or POLICY_SOURCE for teacher in teachers),
        scores=tuple(None if chosen is None else chosen.score for chosen in selections),
        segments=tuple(sample.segments for sample in samples),
        given=tuple(_given(sample) for sample in samples),
        prompts=tuple(sample.prompt_token_ids for sample in samples),
        read=tuple(_read(sample) for sample in samples),
    )


def _read(sample: Sample) -> TokenIds:
    """What the sample's response was written after; what it was given of the response itself stands there."""
    prompt, rollout = sample.prompt_token_ids, sample.rollout
    if rollout is None or rollout.prompt_token_ids is None:
        return prompt
    same = rollout.prompt_token_ids + rollout.token_ids == prompt + sample.token_ids
    return prompt if same else rollout.prompt_token_ids


def _given(sample: Sample) -> int:
    """Characters of the sample's text before what the student wrote."""
    own = sample.text if sample.rollout is None else sample.rollout.text
    return len(sample.text) - len(own) if sample.text.endswith(own) else 0
