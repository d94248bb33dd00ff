"""The tables of an evaluate job: on the screen, and as Markdown in results.md.

Up to `WIDE` models get a block each with a row a set. More of them become rows, with a column a set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ampo_core.evaluation.compare import reading, unverified
from ampo_core.report.evaluation import models_and_sets
from ampo_core.report.marks import footnotes, signed
from ampo_core.report.scores import RESULTS, Row, Scores
from ampo_core.report.tables import Column, Table, interval, points, share

WIDE = 3
"""More models than this are shown in the compact form."""
CAPTION = (
    "Shares in percent, 95 % intervals in brackets, length in tokens, entropy in nats a token. Intervals resample "
    "questions; they do not tell how another training seed would end."
)
Shown = tuple[str, str, Callable[[Row], str]]
"""(heading, set, what is shown of a model's row of that set)"""


def screen_table(scores: Scores) -> Table[Any]:
    """The table of a screen."""
    if len(scores.models) <= WIDE:
        return models_and_sets(scores, title=scores.title, caption=CAPTION)
    *names, last = scores.sets
    columns: list[Shown] = [(_heading(scores, name), name, lambda row: share(row.average.value)) for name in names]
    columns += [
        (_heading(scores, last), last, lambda row: interval(row.average)),
        ("length", last, lambda row: f"{row.measured['length_mean']:.0f}"),
        ("cut off", last, lambda row: share(row.measured["truncated"])),
    ]
    return replace(_by_model(scores, scores.models, columns, scores.title, CAPTION), notes=footnotes(scores.changed))


def screen_readings(scores: Scores) -> list[str]:
    """The readings that fit on a screen: of many models those of the means, against the baseline."""
    return _readings(scores, scores.rows, f"Every pair of models is compared in {RESULTS}.")


def markdown(scores: Scores, budgets: Mapping[str, Sequence[str]], note: str | None) -> str:
    """results.md: averages, differences to the baseline, pass@k, lengths, budgets, readings. Models are rows."""
    models, names = scores.models, scores.sets

    def by_model(title: str, columns: Sequence[Shown], models: Sequence[str] = models) -> str:
        return _by_model(scores, models, columns, title).markdown()

    parts = [f"# {scores.title}"]
    parts.append(by_model("", [(_heading(scores, name), name, lambda row: interval(row.average)) for name in names]))
    if len(models) > 1:
        columns: list[Shown] = [(name, name, lambda row: points(row.difference)) for name in names]
        others = [model for model in models if model != scores.baseline]
        parts.append(by_model(f"Points of difference to {scores.baseline}", columns, others))
    for name in names:
        tries = sorted({k for row in scores.rows if row.set == name for k in row.pass_at})
        if tries:
            parts.append(by_model(f"{name}: pass@k", [(f"k = {k}", name, _passed(k)) for k in tries]))
    parts.append(by_model("Mean length in tokens (share cut off)", [(name, name, _length) for name in names]))
    said = _readings(scores, [*scores.rows, *scores.pairs], f"The same set by set: {RESULTS}.") + unverified(scores)
    took = ["\n  - ".join([f"{model}: {own}", *before]) for model, (own, *before) in budgets.items()]
    lists = {"Changed on the way": footnotes(scores.changed), "What the models' training took": took, "In words": said}
    parts += [
        "\n\n".join([f"## {title}", "\n".join(f"- {line}" for line in lines)])
        for title, lines in lists.items()
        if lines
    ]
    return "\n\n".join([*parts, CAPTION, *([note.strip()] if note else [])]) + "\n"


def _by_model(
    scores: Scores, models: Sequence[str], columns: Sequence[Shown], title: str, caption: str = ""
) -> Table[str]:
    """A row for each of `models`."""
    rows = {(row.model, row.set): row for row in scores.rows}

    def column(heading: str, name: str, show: Callable[[Row], str]) -> Column[str]:
        return Column(heading, lambda model: show(rows[model, name]))

    name: Column[str] = Column("model", lambda model: signed(model, scores.changed), text=True)
    return Table([name, *(column(*item) for item in columns)], models, title, caption)


def _readings(scores: Scores, rows: Sequence[Row], where: str) -> list[str]:
    """Of a few models all readings. Of many those of `rows` that are of groups and the macro mean, or of a single set
    where there is no mean, and `where` the others are."""
    if len(scores.models) <= WIDE:
        return list(scores.readings)
    several = any(row.members is not None for row in rows)
    return [*(reading(row) for row in rows if row.difference and (row.members or not several)), where]


def _heading(scores: Scores, name: str) -> str:
    """A column's name with the samples behind it."""
    samples = {row.samples for row in scores.rows if row.set == name and row.members is None}
    return f"{name} avg@{samples.pop()}" if len(samples) == 1 else name.replace("_", " ")


def _length(row: Row) -> str:
    return f"{row.measured['length_mean']:.0f} ({share(row.measured['truncated'])})"


def _passed(k: int) -> Callable[[Row], str]:
    return lambda row: interval(row.pass_at[k])
