"""A step's metrics, by the names of the contract (docs/loop.md explains each)."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean

import torch
from ampo_registry.types import GroupReport, RolloutGroup

from ampo_core.distributed.ranks import Ranks
from ampo_core.learner.learner import UpdateReport
from ampo_core.loop.groups import AugmentedGroup
from ampo_core.loop.objective import MiniBatchLoss
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


def rollout_metrics(groups: Sequence[RolloutGroup], *, policy_version: int, known_ids: int) -> dict[str, float]:
    """Rewards, lengths and counts of the sampled rollouts, before any was replaced, and by how many versions the
    current policy is newer than the one that sampled them. The tokenizer knows the ids below `known_ids`."""
    grades = [grade for group in groups for grade in group.grades]
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    lengths = [len(rollout.token_ids) for rollout in rollouts]
    return {
        "reward/mean": fmean(grade.reward for grade in grades),
        "reward/accuracy": fmean(grade.correct for grade in grades),
        "reward/format": fmean(grade.formatted for grade in grades),
        "response/length_mean": fmean(lengths),
        "response/truncated": fmean(rollout.finish_reason == "length" for rollout in rollouts),
        "response/unknown_tokens": float(sum(unknown_tokens(rollout.token_ids, known_ids) for rollout in rollouts)),
        "rollout/staleness": fmean(policy_version - rollout.policy_version for rollout in rollouts),
        "tokens/generated": float(sum(lengths)),
    }


def unknown_tokens(token_ids: Sequence[int], known_ids: int) -> int:
    """How many of `token_ids` the tokenizer does not know: the head of many models has more rows than it has tokens."""
    return sum(token >= known_ids for token in token_ids) if max(token_ids, default=0) >= known_ids else 0


def guidance_metrics(groups: Sequence[AugmentedGroup]) -> dict[str, float]:
    """How often guidance was needed and whose it was. Shares of teachers are of this step's replacements."""
    selections = [slot.selection for group in groups for slot in group.slots if slot.selection is not None]
    scores = [selection.score for selection in selections if selection.score is not None]
    teachers = Counter(selection.guidance.teacher for selection in selections)
    return {
        "guidance/triggered": fmean(group.triggered for group in groups),
        "guidance/replaced": len(selections) / len(groups),
        **({"guidance/format": fmean(s.guidance.grade.formatted for s in selections)} if selections else {}),
        **({"guidance/score_mean": fmean(scores)} if scores else {}),
        **{f"guidance/answers/{name}": float(count) for name, count in sorted(teachers.items())},
        **{f"guidance/teacher/{name}": count / len(selections) for name, count in sorted(teachers.items())},
        "tokens/teacher": float(sum(len(selection.guidance.token_ids) for selection in selections)),
    }


def group_metrics(sampled: Sequence[AugmentedGroup], kept: Sequence[int]) -> dict[str, float]:
    """How many groups were sampled, how many of them are trained on, and how many of these have an advantage."""
    return {
        "groups/sampled": float(len(sampled)),
        "groups/trained": float(len(kept)),
        "groups/with_signal": float(sum(any(sampled[i].advantages) for i in kept)),
    }


def update_metrics(
    reports: Sequence[UpdateReport], losses: Sequence[MiniBatchLoss], ranks: Ranks, learning_rate: float
) -> dict[str, float]:
    """Means over the step's optimizer updates; token counts are sums over updates and ranks. `learning_rate` is that of
    the last update, or where there was none that which the step would have begun with."""
    if not reports:
        return {"policy/learning_rate": learning_rate, "tokens/trained": 0.0, "tokens/padding": 0.0}
    names = ("loss", "loss_on", "loss_off", "clipped", "importance")
    sums = [[loss.sums().get(name, 0.0) for name in names] for loss in losses]
    local = [sum(column) for column in zip(*sums, strict=True)]
    total = ranks.sum(torch.tensor(local, dtype=torch.float64, device=ranks.device)).tolist()
    on_policy_tokens = sum(loss.on_policy_tokens for loss in losses)
    weighed = sum(ranks.each(sum(loss.weighed_tokens for loss in losses)))
    skipped = sum(report.skipped for report in reports)
    norms = [report.grad_norm for report in reports if report.tokens and not report.skipped]
    return {
        "policy/loss": total[0] / len(reports),
        "policy/loss_on": total[1] / len(reports),
        "policy/loss_off": total[2] / len(reports),
        "policy/clip_fraction": total[3] / on_policy_tokens if on_policy_tokens else 0.0,
        "policy/grad_norm": fmean(norms) if norms else math.nan if skipped else 0.0,
        "policy/empty_updates": float(sum(not report.tokens for report in reports)),
        "policy/skipped_updates": float(skipped),
        "policy/learning_rate": learning_rate,
        **({"policy/importance_weight": total[4] / weighed} if weighed else {}),
        "tokens/trained": float(sum(report.tokens for report in reports)),
        "tokens/padding": float(sum(report.padding for report in reports)),
    }


def group_report(group: AugmentedGroup) -> GroupReport:
    """The group as observers and samples.jsonl see it."""
    selections = [slot.selection for slot in group.slots]
    return GroupReport(
        question=group.question,
        texts=tuple(slot.text for slot in group.slots),
        rewards=tuple(slot.reward for slot in group.slots),
        sources=tuple(POLICY_SOURCE if chosen is None else chosen.guidance.teacher for chosen in selections),
        scores=tuple(None if chosen is None else chosen.score for chosen in selections),
    )
