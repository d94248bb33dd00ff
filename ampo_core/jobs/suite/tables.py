"""The results of a suite: what was found at each seed, put together row by row. render.py writes them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError, RunError
from rich.console import Console

from ampo_core.config.suite_job import SuiteTable
from ampo_core.data.json_lines import json_lines
from ampo_core.evaluation.statistics import average
from ampo_core.jobs.suite.plan import EVALUATIONS, Plan
from ampo_core.jobs.suite.statistics import Scores, SeedEstimate, difference, over_seeds
from ampo_core.report.budget import Budget
from ampo_core.report.marks import patches
from ampo_core.report.spent import Spent, read_spent
from ampo_core.run.progress import say

MEASURED = ("length_mean", "truncated")
SPENT = ("tokens_generated", "tokens_trained", "teacher_answers", "teacher_tokens")


@dataclass(frozen=True, slots=True)
class Found:
    """What one model did in an evaluation at one seed: the scores, and the means over sets of MEASURED."""

    scores: Scores
    measured: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ResultRow:
    """A run over the seeds that are there.

    `sets` holds each set's mean at each seed; `score` is the macro mean in the first evaluation, `further` that in
    the others; `difference` is `score` against the baseline's at the seeds that both have. `budget` is what the run
    and those that it was made from spent, `own` what it spent itself: means over seeds, None where nothing was trained
    or recorded. `changed` are the changes that it went on with at some seed, in words.
    """

    run: str
    title: str
    seeds: tuple[int, ...]
    sets: Mapping[str, tuple[float, ...]]
    score: SeedEstimate | None
    difference: SeedEstimate | None
    further: Mapping[str, SeedEstimate]
    measured: Mapping[str, float]
    budget: Mapping[str, float | None]
    own: Mapping[str, float | None]
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ResultTable:
    """A table with its rows. `wanted` is how many seeds each row should have."""

    name: str
    title: str
    baseline: str
    wanted: int
    evaluation: str
    rows: tuple[ResultRow, ...]
    note: str | None

    def as_json(self) -> dict[str, Any]:
        """The numbers in JSON types; what is not finite is null."""
        return dict(_plain(asdict(self)))


def gather(plan: Plan, console: Console) -> list[ResultTable]:
    """The tables that are asked for. Raises RunError if what a finished evaluation left cannot be read."""
    shown = plan.job.shown_tables()
    runs = list(dict.fromkeys(run for table in shown.values() for run in table.rows))
    found = {run: {evaluation: _found(plan, run, evaluation) for evaluation in plan.job.evaluations} for run in runs}
    budgets = {run: _spent(plan, run, console) for run in runs}
    return [_table(plan, name, table, found, budgets) for name, table in shown.items()]


def _table(
    plan: Plan,
    name: str,
    table: SuiteTable,
    found: Mapping[str, Mapping[str, Mapping[int, Found]]],
    spent: Mapping[str, Sequence[Spent]],
) -> ResultTable:
    baseline, drawn = table.baseline or table.rows[0], plan.job.run.seed
    first = next(iter(plan.job.evaluations), "")
    members = plan.job.members()
    rows = []
    for run in table.rows:
        own, other = found[run].get(first, {}), {} if run == baseline else found[baseline].get(first, {})
        pairs = [difference(own[seed].scores, other[seed].scores) for seed in own if seed in other]
        by_evaluation = {name: [item.scores for item in here.values()] for name, here in found[run].items() if here}
        estimates = {name: over_seeds(scores, drawn) for name, scores in by_evaluation.items()}
        sets = dict.fromkeys(name for item in own.values() for name in item.scores)
        rows.append(
            ResultRow(
                run=run,
                title=members[run].title or run,
                seeds=tuple(own),
                sets={name: tuple(average([*item.scores[name].values()]) for item in own.values()) for name in sets},
                score=estimates.pop(first, None),
                difference=over_seeds(pairs, drawn) if pairs and all(pairs) else None,
                further=estimates,
                measured={name: average([item.measured[name] for item in own.values()]) for name in MEASURED if own},
                budget=_means([item.total for item in spent[run]]),
                own=_means([item.own for item in spent[run]]),
                changed=tuple(_changed(plan, run)),
            )
        )
    return ResultTable(name, table.title or name, baseline, len(plan.job.seeds), first, tuple(rows), table.note)


def _spent(plan: Plan, run: str, console: Console) -> list[Spent]:
    """What `run` spent at each seed; none if it trained nothing. What cannot be read is said and left out."""
    found = []
    for seed in plan.job.seeds:
        here = plan.root / f"seed-{seed}"
        if (here / run / "done").exists():
            shared = [here / stage.name for stage in plan.job.stages]
            try:
                found.append(read_spent(here / run, without=shared))
            except ConfigError as error:
                say(console, f"{run}, seed {seed}: its budget is not known: {error}")
    return found


def _changed(plan: Plan, run: str) -> Iterator[str]:
    for seed in plan.job.seeds:
        folder = plan.root / f"seed-{seed}" / run
        yield from (f"seed {seed}, {patch}" for patch in (patches(folder) if (folder / "done").exists() else ()))


def _means(budgets: Sequence[Budget]) -> dict[str, float | None]:
    """The means of SPENT over `budgets`; {} without any."""
    numbers = {name: [asdict(budget)[name] for budget in budgets] for name in SPENT if budgets}
    return {name: None if None in values else average(values) for name, values in numbers.items()}


def _found(plan: Plan, run: str, evaluation: str) -> dict[int, Found]:
    """seed -> what the finished evaluations of `run` found."""
    folders = {seed: plan.root / f"seed-{seed}" / EVALUATIONS / evaluation / run for seed in plan.job.seeds}
    return {seed: _read(folder, run) for seed, folder in folders.items() if (folder / "done").exists()}


def _read(folder: Path, run: str) -> Found:
    try:
        sets = json.loads((folder / "results.json").read_text(encoding="utf-8"))["models"][run]
        samples: dict[str, dict[str, list[bool]]] = {}
        for line in json_lines(folder / "predictions.jsonl", dict, what="a prediction", error=RunError):
            sample = line.value
            samples.setdefault(sample["set"], {}).setdefault(sample["uid"], []).append(bool(sample["correct"]))
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{folder}: what this evaluation left cannot be read: {error!r}") from error
    single = [numbers for name, numbers in sets.items() if name in samples]
    scores = {name: {uid: average(right) for uid, right in by.items()} for name, by in samples.items()}
    return Found(scores, {name: average([numbers[name] for numbers in single]) for name in MEASURED})


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(child) for key, child in value.items()}
    return [_plain(child) for child in value] if isinstance(value, (list, tuple)) else value
