"""Several models on the same held-out questions: the numbers, the differences and what they say in a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from rich.console import Console
from rich.table import Table

from ampo_core.data.seeds import derive_seed
from ampo_core.evaluation.results import Evaluation, SetResult
from ampo_core.evaluation.statistics import (
    Estimate,
    average,
    bootstrap_macro_mean,
    bootstrap_mean,
    paired_difference,
)

MACRO = "macro"
LOG_WIDTH = 160


@dataclass(frozen=True, slots=True)
class Row:
    """A model on a set, or on several (`members`): a group of the evaluation, or "macro", all sets.

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
    members: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows, model by model and set by set; `others` compares the models beside the baseline pair by pair."""

    baseline: str
    rows: tuple[Row, ...]
    others: tuple[Comparison, ...] = ()

    @property
    def models(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(dict.fromkeys(row.model for row in self.rows))

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """group -> its sets, "macro" left out."""
        return {row.set: row.members for row in self.rows if row.members is not None and row.set != MACRO}

    def as_json(self) -> dict[str, Any]:
        """What results.json holds: models -> sets, groups and "macro" -> numbers, and the readings."""
        models: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            models.setdefault(row.model, {})[row.set] = {
                "questions": row.questions,
                "samples": row.samples,
                "avg": asdict(row.average),
                "pass_at": {str(k): asdict(estimate) for k, estimate in row.pass_at.items()},
                "entropy": None,
                **row.measured,
                "difference": asdict(row.difference) if row.difference else None,
                "unpaired_questions": row.unpaired,
            }
        groups = {name: list(members) for name, members in self.groups.items()}
        return {"baseline": self.baseline, "models": models, "groups": groups, "readings": self.readings()}

    def readings(self) -> list[str]:
        """One sentence for each set and pair of models, computed from the numbers alone."""
        own = [reading(row, self.baseline) for row in self.rows if row.difference is not None]
        return [*own, *(sentence for other in self.others for sentence in other.readings())]

    def unverified(self) -> list[str]:
        """One sentence for each model with responses that got no verdict: they count as wrong."""
        rows = [row for row in self.rows if row.members is None]
        lines = []
        for model in self.models:
            timeouts, errors = (
                int(sum(row.measured[name] for row in rows if row.model == model)) for name in ("timeouts", "errors")
            )
            if timeouts or errors:
                lines.append(f"{model}: {timeouts} verifier timeouts and {errors} errors count as wrong.")
        return lines


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
    rows = [
        row
        for model, evaluation in evaluations.items()
        for row in _rows(model, evaluation, None if model == baseline else reference, seed)
    ]
    rivals = combinations([model for model in evaluations if model != baseline], 2)
    others = [Comparison(a, tuple(_rows(b, evaluations[b], evaluations[a], seed, whole=False))) for a, b in rivals]
    return Comparison(baseline, tuple(rows), tuple(others))


def _rows(
    model: str, evaluation: Evaluation, reference: Evaluation | None, seed: int, *, whole: bool = True
) -> Iterator[Row]:
    """A row for each set, group and the macro mean; without `whole` only the differences have intervals."""
    paired = {}
    for i, result in enumerate(evaluation.sets):
        paired[result.name] = (result, _paired(result, reference.sets[i] if reference else None))
    for name, (result, pairs) in paired.items():
        yield _set_row(model, result, pairs, derive_seed("bootstrap", seed, name), whole=whole)
    means = {**evaluation.groups, **({MACRO: tuple(paired)} if len(paired) > 1 else {})}
    for name, members in means.items():
        sets = [paired[member] for member in members]
        yield _mean_row(model, name, sets, derive_seed("bootstrap", seed, name), whole=whole)


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


def _set_row(model: str, result: SetResult, pairs: _Pairs | None, seed: int, *, whole: bool) -> Row:
    metrics = result.metrics()
    return Row(
        model=model,
        set=result.name,
        questions=len(result.questions),
        samples=result.samples,
        average=_estimate([result.averages()], seed, whole),
        pass_at={k: bootstrap_mean(result.passes(k), seed) for k in (result.pass_at if whole else ())},
        measured={name: value for name, value in metrics.items() if "@" not in name},
        difference=paired_difference(pairs.ours, pairs.theirs, seed) if pairs and pairs.ours else None,
        unpaired=pairs.unpaired if pairs else 0,
    )


def _mean_row(model: str, name: str, sets: Sequence[tuple[SetResult, _Pairs | None]], seed: int, *, whole: bool) -> Row:
    """The mean over `sets`, each with its pairs."""
    results = [result for result, _ in sets]
    samples = {result.samples for result in results}
    common = set.intersection(*(set(result.pass_at) for result in results)) if whole else set()
    metrics = [result.metrics() for result in results]
    paired = [pairs for _, pairs in sets if pairs is not None]
    differences = [[a - b for a, b in zip(p.ours, p.theirs, strict=True)] for p in paired if p.ours]
    shared = [name for name in ("length_mean", "truncated", "entropy") if all(name in m for m in metrics)]
    return Row(
        model=model,
        set=name,
        questions=sum(len(result.questions) for result in results),
        samples=samples.pop() if len(samples) == 1 else None,
        average=_estimate([result.averages() for result in results], seed, whole),
        pass_at={k: bootstrap_macro_mean([result.passes(k) for result in results], seed) for k in sorted(common)},
        measured={
            **{name: average([m[name] for m in metrics]) for name in shared},
            **{name: sum(m[name] for m in metrics) for name in ("timeouts", "errors")},
        },
        difference=bootstrap_macro_mean(differences, seed) if len(differences) == len(results) else None,
        unpaired=sum(p.unpaired for p in paired),
        members=tuple(result.name for result in results),
    )


def _estimate(sets: Sequence[Sequence[float]], seed: int, whole: bool) -> Estimate:
    if whole:
        return bootstrap_macro_mean(sets, seed)
    value = average([average(values) for values in sets])
    return Estimate(value, value, value)


def reading(row: Row, baseline: str) -> str:
    """What the difference to the baseline says, in a sentence. The row must have one."""
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


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"
