"""Several models on the same held-out questions: the table, the differences and what they say in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from rich.console import Console
from rich.table import Table

from ampo_core.data.seeds import derive_seed
from ampo_core.results import Evaluation, SetResult
from ampo_core.statistics import (
    Estimate,
    average,
    bootstrap_macro_mean,
    bootstrap_mean,
    paired_difference,
)

MACRO = "macro"
LOG_WIDTH = 160
CAPTION = (
    "Shares in percent, 95 % intervals in brackets, length in tokens, entropy in nats a token. Intervals resample "
    "questions; they do not tell how another training seed would end."
)


@dataclass(frozen=True, slots=True)
class Row:
    """A model on a set, or on all of them (`set` is "macro": the mean over sets).

    `difference` is that of avg@K to the baseline over the questions both answered, None for the baseline itself;
    `unpaired` counts questions that only one of the two had. `samples` is None where sets differ in it.
    """

    model: str
    set: str
    questions: int
    samples: int | None
    average: Estimate
    pass_at: Mapping[int, Estimate]
    measured: Mapping[str, float]
    difference: Estimate | None
    unpaired: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows, model by model and set by set; `others` compares the models beside the baseline pair by pair."""

    baseline: str
    rows: tuple[Row, ...]
    others: tuple[Comparison, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """What results.json holds: models -> sets -> numbers, and the readings."""
        models: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            models.setdefault(row.model, {})[row.set] = {
                "questions": row.questions,
                "samples": row.samples,
                "avg": asdict(row.average),
                "pass_at": {str(k): asdict(estimate) for k, estimate in row.pass_at.items()},
                **row.measured,
                "difference": asdict(row.difference) if row.difference else None,
                "unpaired_questions": row.unpaired,
            }
        return {"baseline": self.baseline, "models": models, "readings": self.readings()}

    def readings(self) -> list[str]:
        """One sentence for each set and pair of models, computed from the numbers alone."""
        own = [_reading(row, self.baseline) for row in self.rows if row.difference is not None]
        return [*own, *(reading for other in self.others for reading in other.readings())]

    def unverified(self) -> list[str]:
        """One sentence for each model with responses that got no verdict: they count as wrong."""
        rows = [row for row in self.rows if row.set != MACRO]
        lines = []
        for model in dict.fromkeys(row.model for row in rows):
            timeouts, errors = (
                int(sum(row.measured[name] for row in rows if row.model == model)) for name in ("timeouts", "errors")
            )
            if timeouts or errors:
                lines.append(f"{model}: {timeouts} verifier timeouts and {errors} errors count as wrong.")
        return lines

    def table(self) -> Table:
        """One block a model, one row a set."""
        tries = sorted({k for row in self.rows for k in row.pass_at})
        table = Table(title="Held-out questions", caption=CAPTION, caption_justify="left", title_justify="left")
        table.add_column("model", no_wrap=True)
        table.add_column("set", no_wrap=True)
        names = ["questions", _average_name(self.rows), *(f"pass@{k}" for k in tries), "length", "cut off", "entropy"]
        versus = [f"against {self.baseline}"] if any(row.difference for row in self.rows) else []
        for name in (*names, *versus):
            table.add_column(name, justify="right")
        for i, row in enumerate(self.rows):
            first = i == 0 or self.rows[i - 1].model != row.model
            last = i + 1 == len(self.rows) or self.rows[i + 1].model != row.model
            cells = [row.model if first else "", row.set, *_cells(row, tries, bool(versus))]
            table.add_row(*cells, end_section=last)
        return table


def print_table(table: Table, console: Console) -> None:
    """Print `table` whole: where the console is too narrow, wider than it, for a cut number is worth nothing."""
    needed = console.measure(table, options=console.options.update(max_width=LOG_WIDTH)).maximum
    if console.width >= needed:
        console.print(table)
    else:
        Console(file=console.file, width=LOG_WIDTH, force_terminal=console.is_terminal).print(table)


def compare(evaluations: Mapping[str, Evaluation], baseline: str, seed: int) -> Comparison:
    """Compare `evaluations` (by model name; the same sets in the same order) with that of `baseline`."""
    reference = evaluations[baseline]
    rows: list[Row] = []
    for model, evaluation in evaluations.items():
        other = None if model == baseline else reference
        paired = [_paired(ours, other.sets[i] if other else None) for i, ours in enumerate(evaluation.sets)]
        for result, pairs in zip(evaluation.sets, paired, strict=True):
            rows.append(_set_row(model, result, pairs, derive_seed("bootstrap", seed, result.name)))
        if len(evaluation.sets) > 1:
            rows.append(_macro_row(model, evaluation, paired, derive_seed("bootstrap", seed, MACRO)))
    rivals = combinations([model for model in evaluations if model != baseline], 2)
    others = [compare({a: evaluations[a], b: evaluations[b]}, a, seed) for a, b in rivals]
    return Comparison(baseline, tuple(rows), tuple(others))


@dataclass(frozen=True, slots=True)
class _Pairs:
    """avg@K [questions] of both models on the questions both have."""

    ours: list[float]
    theirs: list[float]
    unpaired: int


def _paired(ours: SetResult, theirs: SetResult | None) -> _Pairs | None:
    if theirs is None:
        return None
    mine = dict(zip((question.uid for question in ours.questions), ours.averages(), strict=True))
    other = dict(zip((question.uid for question in theirs.questions), theirs.averages(), strict=True))
    both = [uid for uid in mine if uid in other]
    unpaired = len(mine) + len(other) - 2 * len(both)
    return _Pairs([mine[uid] for uid in both], [other[uid] for uid in both], unpaired)


def _set_row(model: str, result: SetResult, pairs: _Pairs | None, seed: int) -> Row:
    metrics = result.metrics()
    return Row(
        model=model,
        set=result.name,
        questions=len(result.questions),
        samples=result.samples,
        average=bootstrap_mean(result.averages(), seed),
        pass_at={k: bootstrap_mean(result.passes(k), seed) for k in result.pass_at},
        measured={name: value for name, value in metrics.items() if "@" not in name},
        difference=paired_difference(pairs.ours, pairs.theirs, seed) if pairs and pairs.ours else None,
        unpaired=pairs.unpaired if pairs else 0,
    )


def _macro_row(model: str, evaluation: Evaluation, paired: Sequence[_Pairs | None], seed: int) -> Row:
    samples = {result.samples for result in evaluation.sets}
    common = set.intersection(*(set(result.pass_at) for result in evaluation.sets))
    metrics = [result.metrics() for result in evaluation.sets]
    differences = [[a - b for a, b in zip(p.ours, p.theirs, strict=True)] for p in paired if p and p.ours]
    return Row(
        model=model,
        set=MACRO,
        questions=sum(len(result.questions) for result in evaluation.sets),
        samples=samples.pop() if len(samples) == 1 else None,
        average=bootstrap_macro_mean([result.averages() for result in evaluation.sets], seed),
        pass_at={
            k: bootstrap_macro_mean([result.passes(k) for result in evaluation.sets], seed) for k in sorted(common)
        },
        measured={
            **{name: average([m[name] for m in metrics]) for name in ("length_mean", "truncated", "entropy")},
            **{name: sum(m[name] for m in metrics) for name in ("timeouts", "errors")},
        },
        difference=bootstrap_macro_mean(differences, seed) if len(differences) == len(evaluation.sets) else None,
        unpaired=sum(p.unpaired for p in paired if p),
    )


def _reading(row: Row, baseline: str) -> str:
    difference = row.difference
    assert difference is not None
    what = "avg" if row.samples is None else f"avg@{row.samples}"
    missing = f"; {row.unpaired} questions that only one of them had are left out" if row.unpaired else ""
    if not difference.excludes_zero:
        interval = f"95 % interval {_points(difference.low)} to {_points(difference.high)}, 0 is inside"
        apart = f"{_points(difference.value)} points of {what}"
        return f"{row.set}: {row.model} and {baseline} cannot be told apart: {apart} ({interval}{missing})."
    leader, other = (row.model, baseline) if difference.value > 0 else (baseline, row.model)
    low, high = sorted((100 * abs(difference.low), 100 * abs(difference.high)))
    lead = f"{100 * abs(difference.value):.1f} points of {what} (95 % interval {low:.1f} to {high:.1f}, 0 is outside"
    return f"{row.set}: {leader} is ahead of {other} by {lead}{missing})."


def _cells(row: Row, tries: Sequence[int], versus: bool) -> list[str]:
    cells = [str(row.questions), f"{100 * row.average.value:.1f} [{100 * row.average.low:.1f}, {_high(row.average)}]"]
    cells += [f"{100 * row.pass_at[k].value:.1f}" if k in row.pass_at else "-" for k in tries]
    cells += [f"{row.measured['length_mean']:.1f}", f"{100 * row.measured['truncated']:.1f}"]
    cells.append(f"{row.measured['entropy']:.3f}")
    if versus:
        d = row.difference
        cells.append(f"{_points(d.value)} [{_points(d.low)}, {_points(d.high)}]" if d else "")
    return cells


def _high(estimate: Estimate) -> str:
    return f"{100 * estimate.high:.1f}"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _average_name(rows: Sequence[Row]) -> str:
    samples = {row.samples for row in rows}
    return f"avg@{samples.pop()}" if len(samples) == 1 else "avg@k"
