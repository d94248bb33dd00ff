"""The sections of several runs side by side: where they ended, what they spent, and what their configs differ in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from ampo_registry.errors import ConfigError

from ampo_core.config.metric_names import MACRO
from ampo_core.report.curves import Series
from ampo_core.report.facts import SPENT_TITLE, spent_table
from ampo_core.report.figures import Line, Panel, figures_of, last_part, shown
from ampo_core.report.html import folded, paragraph, table
from ampo_core.report.marks import footnotes, signed
from ampo_core.report.page import Section
from ampo_core.report.scores import Scores
from ampo_core.report.settings import as_text
from ampo_core.report.sources import Entry, RunData
from ampo_core.report.spent import read_spent
from ampo_core.report.tables import NOTHING, Column, Table, interval
from ampo_core.report.training import GUIDANCE, HEALTH, STEP_TIME, replaced_by_teacher, teachers_figure
from ampo_core.run.changes import PLACE_ONLY
from ampo_core.run.progress import duration

SEED = "run.seed"
MOST_COLUMNS = 5
"""Runs whose settings stand side by side; more are gathered by value."""
MOST_BY_TEACHER = 6
"""Runs whose teachers a comparison shows one by one."""
MOST_BUDGETS = 8
"""More rows than this wait for a click."""
_COLUMNS: tuple[tuple[str, str, bool], ...] = (
    ("reward/mean", "reward", False),
    ("reward/accuracy", "accuracy", True),
    ("response/length_mean", "length", False),
    ("policy/entropy", "entropy", False),
    ("guidance/triggered", "guided", True),
    ("policy/loss", "loss", False),
)
_TIME = Panel(STEP_TIME, "Time of a step", "seconds", may_be_logarithmic=True)


def lines_of(entries: Sequence[Entry]) -> list[Line]:
    """The curves of each entry, in their order."""
    return [Line(entry.name, [run.curves for run in entry.runs], order) for order, entry in enumerate(entries)]


def guidance_figures(lines: Sequence[Line]) -> Section | None:
    """The guidance of the runs that have any, and whose answers each got, if they are few."""
    figures = figures_of(GUIDANCE, lines)
    alone = {line.name: replaced_by_teacher(line.curves[0]) for line in lines if len(line.curves) == 1}
    guided = {name: replaced for name, replaced in alone.items() if replaced}
    if len(guided) <= MOST_BY_TEACHER:
        figures += [teachers_figure(replaced, name) for name, replaced in guided.items()]
    return Section("guidance", "Guidance", figures=figures) if figures else None


def health_figures(lines: Sequence[Line]) -> Section | None:
    """Time and what should stay unremarkable, of all runs; a metric that never changed anywhere is left out."""
    values = {p: {value for line in lines for found in line.series(p.metric) for _, value in found} for p in HEALTH}
    figures = figures_of([_TIME, *(panel for panel in HEALTH if len(values[panel]) > 1)], lines)
    curves = [curves for line in lines for curves in line.curves]
    left_out = [f"{run.name}: {name} ({count})" for run in curves for name, count in sorted(run.left_out.items())]
    note = f"Not a finite number, and left out of the figures (steps): {'; '.join(left_out)}." if left_out else ""
    return Section("health", "Time and health", paragraph(note), figures, folded=True) if figures or note else None


def final_section(
    entries: Sequence[Entry], scores: Sequence[Scores] = (), *, title: str = "Where they ended", id: str = "end"
) -> Section:
    """One row a run: how it was evaluated, the mean of the last tenth of its steps, and what it spent."""
    series = [run.curves.series for entry in entries for run in entry.runs]
    known = [column for column in _COLUMNS if any(column[0] in found for found in series)]
    if any("reward/mean" in found for found in series):
        known = [column for column in known if column[0] != "policy/loss"]
    evaluated = _evaluations(series)
    several = any(len(entry.runs) > 1 for entry in entries)
    judged = [item for item in scores if any(entry.name in item.models for entry in entries)]
    seeds: Column[Entry] = Column("seeds", lambda entry: str(len(entry.runs)))
    marked = {entry.name: entry.patches for entry in entries}
    columns: list[Column[Entry]] = [
        Column("run", lambda entry: signed(entry.name, marked), text=True),
        *([seeds] if several else []),
        Column("steps", lambda entry: _spread(entry, lambda run: run.steps or None, digits=6)),
        *(Column(item.title, partial(_headline, item)) for item in judged),
        *(_metric(name, heading, lambda series: series[-1][1], share=True) for name, heading in evaluated.items()),
        *(_metric(name, heading, last_part, share=share) for name, heading, share in known),
        Column("time in steps", _time),
    ]
    caption = "Means over the last tenth of the steps."
    if evaluated:
        caption += " Held-out: the last evaluation in training."
    for item in judged:
        caption += f" {item.title}: accuracy in percent, mean over sets; brackets: {item.around}."
    if several:
        caption += " Other numbers of several seeds: mean [lowest, highest]."
    table = Table(columns, entries, caption=caption, notes=footnotes(marked))
    return Section(id, title, table.html() + _budgets(entries))


def differences_section(entries: Sequence[Entry]) -> Section:
    """Where the resolved configs of the runs differ, key by key."""
    marked = {entry.runs[0].name: entry.patches for entry in entries}
    configs = {signed(entry.runs[0].name, marked): _leaves(entry.runs[0].config) for entry in entries}
    keys = dict.fromkeys(key for leaves in sorted(configs.values(), key=len, reverse=True) for key in leaves)
    rows = {key: {name: leaves.get(key) for name, leaves in configs.items()} for key in keys}
    settings = {
        key: {name: as_text(value) for name, value in row.items()}
        for key, row in rows.items()
        if key not in (*PLACE_ONLY, SEED) and any(value != next(iter(row.values())) for value in row.values())
    }
    note = "" if settings else "The resolved configs say the same, but for seed and place."
    return Section("differences", "Differences in config", _settings_table(settings) + paragraph(note))


def _settings_table(settings: Mapping[str, Mapping[str, str]]) -> str:
    """A column for each of a few runs; of many a row for each value, with the runs that have it."""
    names = next(iter(settings.values()), {})
    caption = "Keys on which they do not agree"
    if len(names) <= MOST_COLUMNS:
        rows = [[key, *row.values()] for key, row in settings.items()]
        return table(["key", *names], rows, caption=caption, left=len(names) + 1)
    rows = []
    for key, row in settings.items():
        by_value: dict[str, list[str]] = {}
        for name, value in row.items():
            by_value.setdefault(value, []).append(name)
        for value, having in sorted(by_value.items(), key=lambda item: -len(item[1])):
            most = 2 * len(having) > len(row)
            rows.append([key, value, f"the other {len(having)} runs" if most else ", ".join(having)])
            key = ""
    return table(["key", "value", "runs"], rows, caption=caption, left=3)


def gather_scores(entries: Sequence[Entry], orders: Mapping[str, int]) -> list[Scores]:
    """The results of evaluate jobs. Those of a suite (NAME/RUN, once a seed) become one for each NAME.

    `orders` are the places of runs in the page's other figures, so that a model is drawn like its run.
    """
    found: list[Scores] = []
    grouped: dict[str, list[Scores]] = {}
    for entry in entries:
        results = [scores for run in entry.runs if (scores := Scores.read(run.path, entry.name)) is not None]
        if not results:
            continue
        name, slash, model = entry.name.partition("/")
        if slash and all(len(scores.models) == 1 for scores in results):
            named = [[replace(row, model=model) for row in scores.rows] for scores in results]
            grouped.setdefault(name, []).extend(Scores(name, rows, orders=orders) for rows in named)
        else:
            found.append(replace(results[0].over_seeds(results[1:]), orders=orders))
    return found + [scores.over_seeds(more) for scores, *more in grouped.values()]


def _headline(scores: Scores, entry: Entry) -> str:
    """The run's mean over sets, or what it has on the only set; a dash for one that was not evaluated."""
    row = scores.of(entry.name, scores.sets[-1])
    return interval(row.average if row else None)


def _budgets(entries: Sequence[Entry]) -> str:
    budgets, marked, notes = {}, {}, []
    for entry in entries:
        for run in entry.runs:
            name = run.name if len(entry.runs) == 1 else f"{run.name}, {run.path.parent.name}"
            try:
                marked[name] = run.patches
                budgets[name] = read_spent(run.path).as_json()
            except ConfigError as error:
                notes.append(f"{name}: {error}")
    html = spent_table(budgets, marked) + "".join(map(paragraph, notes))
    return html if len(budgets) <= MOST_BUDGETS else folded(SPENT_TITLE, html)


def _evaluations(series: Sequence[Mapping[str, Series]]) -> dict[str, str]:
    """metric -> heading of the held-out accuracies, the mean over sets first."""
    names = sorted({name for found in series for name in found if name.startswith("eval/") and "/avg@" in name})
    headings = {name: name.removeprefix("eval/").split("/")[0] for name in names}
    if len(names) > 1 and any(MACRO in found for found in series):
        return {MACRO: "held-out mean", **headings}
    return headings


def _metric(metric: str, heading: str, ended: Callable[[Series], float], *, share: bool) -> Column[Entry]:
    """Where a metric `ended` in each run."""

    def value(run: RunData) -> float | None:
        return ended(run.curves.series[metric]) if metric in run.curves.series else None

    return Column(heading, lambda entry: _spread(entry, value, share=share))


def _spread(entry: Entry, value: Callable[[RunData], float | None], *, share: bool = False, digits: int = 3) -> str:
    """The value of one run, or mean [lowest, highest] of several."""
    found = [number for run in entry.runs if (number := value(run)) is not None]
    if not found:
        return NOTHING
    low, high = (shown(number, share=share, digits=digits) for number in (min(found), max(found)))
    mean = shown(math.fsum(found) / len(found), share=share, digits=digits)
    return mean if low == high else f"{mean} [{low.removesuffix(' %')}, {high.removesuffix(' %')}]"


def _time(entry: Entry) -> str:
    found = [math.fsum(v for _, v in run.curves.series.get(STEP_TIME, ())) for run in entry.runs]
    return duration(math.fsum(found) / len(found)) if any(found) else NOTHING


def _leaves(value: object, key: str = "") -> dict[str, object]:
    """dotted key -> value of a config; what one of several does not have counts as null."""
    if not isinstance(value, Mapping):
        return {key: value}
    inner = (_leaves(child, f"{key}.{name}" if key else str(name)) for name, child in value.items())
    return {name: leaf for leaves in inner for name, leaf in leaves.items()}
