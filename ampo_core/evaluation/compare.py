"""Several models on the same held-out questions: the numbers, the differences and what they say in a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from ampo_core.data.seeds import derive_seed
from ampo_core.evaluation.results import Evaluation, SetResult
from ampo_core.evaluation.statistics import average, bootstrap_macro_mean, paired
from ampo_core.report.scores import MACRO, Estimate, Row, Scores

TITLE = "Held-out questions"


def compare(evaluations: Mapping[str, Evaluation], baseline: str, seed: int) -> Scores:
    """Compare `evaluations` (by model name; all of the same sets) with that of `baseline`, and then pair by pair."""
    rows = [row for model in evaluations for row in _rows(evaluations, model, baseline, seed)]
    rivals = combinations([model for model in evaluations if model != baseline], 2)
    pairs = [row for a, b in rivals for row in _rows(evaluations, b, a, seed, whole=False)]
    return Scores(TITLE, rows, pairs, baseline, [reading(row) for row in (*rows, *pairs) if row.difference])


def unverified(scores: Scores) -> list[str]:
    """One sentence for each model with responses that got no verdict: they count as wrong."""
    lines = []
    for model in scores.models:
        own = [row.measured for row in scores.rows if row.model == model and row.members is None]
        timeouts, errors = (int(sum(measured[name] for measured in own)) for name in ("timeouts", "errors"))
        if timeouts or errors:
            lines.append(f"{model}: {timeouts} verifier timeouts and {errors} errors count as wrong.")
    return lines


def reading(row: Row) -> str:
    """What the difference to another model says, in a sentence. The row must have one."""
    difference, against = row.difference, row.against
    assert difference is not None
    assert against is not None
    what = "avg" if row.samples is None else f"avg@{row.samples}"
    missing = f"; {row.unpaired} questions that only one of them had are left out" if row.unpaired else ""
    value, low, high = (100 * number for number in (difference.value, difference.low, difference.high))
    if not difference.excludes_zero:
        apart = f"{value:+.1f} points of {what} (95 % interval {low:+.1f} to {high:+.1f}, 0 is inside{missing})"
        return f"{row.set}: {row.model} and {against} cannot be told apart: {apart}."
    leader, other = (row.model, against) if value > 0 else (against, row.model)
    low, high = sorted((abs(low), abs(high)))
    lead = f"{abs(value):.1f} points of {what} (95 % interval {low:.1f} to {high:.1f}, 0 is outside{missing})"
    return f"{row.set}: {leader} is ahead of {other} by {lead}."


def _rows(
    evaluations: Mapping[str, Evaluation], model: str, against: str, seed: int, *, whole: bool = True
) -> Iterator[Row]:
    """A row for each set, group and the macro mean; without `whole` only the differences have intervals."""
    ours, theirs = ({result.name: result for result in evaluations[name].sets} for name in (model, against))
    means = [*evaluations[model].groups.items(), *([(MACRO, tuple(ours))] if len(ours) > 1 else [])]
    for name, members in [*((name, None) for name in ours), *means]:
        drawn, inside = derive_seed("bootstrap", seed, name), members or (name,)
        row = _row(model, name, [ours[member] for member in inside], drawn, whole)
        pairs = [(ours[member].by_question(), theirs[member].by_question()) for member in inside]
        yield replace(row if model == against else _versus(row, against, pairs, drawn), members=members)


def _row(model: str, name: str, results: Sequence[SetResult], seed: int, whole: bool) -> Row:
    """The mean over `results`."""
    averages = [result.averages() for result in results]
    value = average([average(values) for values in averages])
    samples = {result.samples for result in results}
    tries = [k for k in results[0].pass_at if whole and all(k in result.pass_at for result in results)]
    metrics = [result.metrics() for result in results]
    shared = [key for key in ("length_mean", "truncated", "entropy") if all(key in found for found in metrics)]
    means = {key: average([found[key] for found in metrics]) for key in shared}
    return Row(
        model=model,
        set=name,
        questions=sum(len(result.questions) for result in results),
        samples=samples.pop() if len(samples) == 1 else None,
        average=bootstrap_macro_mean(averages, seed) if whole else Estimate(value, value, value),
        pass_at={k: bootstrap_macro_mean([result.passes(k) for result in results], seed) for k in tries},
        measured={**means, **{key: sum(found[key] for found in metrics) for key in ("timeouts", "errors")}},
    )


def _versus(row: Row, against: str, pairs: Sequence[tuple[Mapping[str, float], ...]], seed: int) -> Row:
    """`row` with its difference to `against`; `pairs` [sets] are what both have, question by question."""
    apart = [paired(ours, theirs) for ours, theirs in pairs]
    found = bootstrap_macro_mean([list(both.values()) for both in apart], seed) if all(apart) else None
    unpaired = sum(len(ours.keys() ^ theirs.keys()) for ours, theirs in pairs)
    return replace(row, difference=found, against=against, unpaired=unpaired)
