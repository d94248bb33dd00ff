"""The tables of a suite: what was found at each seed, put together."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError, RunError
from rich.console import Console

from ampo_core.config.suite_job import SuiteTable
from ampo_core.data.json_lines import json_lines
from ampo_core.evaluation.statistics import average
from ampo_core.jobs.suite.curves import draw_training
from ampo_core.jobs.suite.plan import EVALUATIONS, Plan
from ampo_core.jobs.suite.render import render
from ampo_core.jobs.suite.statistics import Scores, SeedEstimate, difference, over_seeds
from ampo_core.report.budget import Budget, total_budget
from ampo_core.run.files import write_json
from ampo_core.run.progress import say

MEASURED = ("length_mean", "truncated")


@dataclass(frozen=True, slots=True)
class Found:
    """What one model did in an evaluation at one seed: the scores, and the means over sets of MEASURED."""

    scores: Scores
    measured: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ResultRow:
    """A run over the seeds that are there.

    `sets` holds each set's mean at each seed; `score` is the macro mean in the first evaluation, `further` that in
    the others; `difference` is `score` against the baseline's at the seeds that both have. Budgets are means over
    seeds; None where nothing was trained or recorded.
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
        finite: dict[str, Any] = json.loads(json.dumps(_plain(asdict(self))))
        for row, found in zip(finite["rows"], self.rows, strict=True):
            for name, estimate in (("score", found.score), ("difference", found.difference)):
                if estimate is not None:
                    row[name] |= _middle(estimate)
            for name, estimate in found.further.items():
                row["further"][name] |= _middle(estimate)
        return finite


def write_tables(plan: Plan, console: Console) -> list[ResultTable]:
    """Print the tables that are asked for and write them as Markdown, HTML and pictures, with their numbers.

    TABLE.png shows the scores with every seed, TABLE.curves.png the training curves, each the mean over its seeds.
    """
    cache: dict[Path, Found | None] = {}
    shown = plan.job.shown_tables()
    budgets = {
        run: _budget(plan, run, console) for run in {row: None for table in shown.values() for row in table.rows}
    }
    tables = [_table(plan, name, table, cache, budgets) for name, table in shown.items()]
    folder = plan.root / "tables"
    folder.mkdir(exist_ok=True)
    for table in tables:
        runs = [(row.title, [plan.root / f"seed-{seed}" / row.run for seed in plan.job.seeds]) for row in table.rows]
        draw_training(runs, folder / f"{table.name}.curves.png")
    render(tables, folder, console)
    path = plan.root / "results.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_json(path, {**known, **{table.name: table.as_json() for table in tables}})
    say(console, f"tables: {folder}")
    return tables


def _table(
    plan: Plan,
    name: str,
    table: SuiteTable,
    cache: dict[Path, Found | None],
    budgets: Mapping[str, Mapping[str, float | None]],
) -> ResultTable:
    evaluations = list(plan.job.evaluations)
    baseline = table.baseline or table.rows[0]
    found = {
        (run, evaluation, seed): _found(plan.root / f"seed-{seed}" / EVALUATIONS / evaluation / run, run, cache)
        for run in table.rows
        for evaluation in evaluations
        for seed in plan.job.seeds
    }
    rows = tuple(_row(plan, run, baseline, evaluations, found, budgets[run]) for run in table.rows)
    first = evaluations[0] if evaluations else ""
    return ResultTable(name, table.title or name, baseline, len(plan.job.seeds), first, rows, table.note)


def _row(
    plan: Plan,
    run: str,
    baseline: str,
    evaluations: Sequence[str],
    found: Mapping[tuple[str, str, int], Found | None],
    budget: Mapping[str, float | None],
) -> ResultRow:
    by_evaluation = {
        evaluation: {seed: here for seed in plan.job.seeds if (here := found[run, evaluation, seed]) is not None}
        for evaluation in evaluations
    }
    first = by_evaluation[evaluations[0]] if evaluations else {}
    estimates = {
        evaluation: over_seeds([item.scores for item in here.values()], plan.job.run.seed)
        for evaluation, here in by_evaluation.items()
        if here
    }
    pairs = [
        difference(item.scores, other.scores)
        for seed, item in first.items()
        if run != baseline and (other := found.get((baseline, evaluations[0], seed))) is not None
    ]
    names = list(dict.fromkeys(name for item in first.values() for name in item.scores))
    return ResultRow(
        run=run,
        title=plan.job.members()[run].title or run,
        seeds=tuple(first),
        sets={name: tuple(average(list(item.scores[name].values())) for item in first.values()) for name in names},
        score=estimates.get(evaluations[0]) if evaluations else None,
        difference=over_seeds(pairs, plan.job.run.seed) if pairs and all(pairs) else None,
        further={name: estimate for name, estimate in estimates.items() if name != evaluations[0]},
        measured={name: average([item.measured[name] for item in first.values()]) for name in MEASURED if first},
        budget=budget,
    )


def _budget(plan: Plan, run: str, console: Console) -> dict[str, float | None]:
    """The means over seeds of what `run` spent; {} if it trained nothing. What cannot be read is said and left out."""
    budgets = []
    for seed in plan.job.seeds:
        here = plan.root / f"seed-{seed}"
        if (here / run / "done").exists():
            shared = [here / stage.name for stage in plan.job.stages]
            try:
                budgets.append(total_budget(here / run, without=shared))
            except ConfigError as error:
                say(console, f"{run}, seed {seed}: its budget is not known: {error}")
    names = ("tokens_generated", "tokens_trained", "teacher_answers", "teacher_tokens")
    return {name: _mean(budgets, name) for name in names} if budgets else {}


def _mean(budgets: Sequence[Budget], name: str) -> float | None:
    values = [getattr(budget, name) for budget in budgets]
    return None if None in values else average(values)


def _found(folder: Path, run: str, cache: dict[Path, Found | None]) -> Found | None:
    """What the evaluation in `folder` found, None if it is not finished. Raises RunError if it cannot be read."""
    if folder not in cache:
        cache[folder] = _read(folder, run) if (folder / "done").exists() else None
    return cache[folder]


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


def _middle(estimate: SeedEstimate) -> dict[str, Any]:
    return {"mean": _plain(estimate.value), "spread": _plain(estimate.spread)}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(child) for child in value]
    return value
