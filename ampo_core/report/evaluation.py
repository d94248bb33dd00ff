"""What evaluate jobs found as tables and figures: accuracy by set, pass@k curves, the table of models and sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ampo_core.report.facts import spent_table
from ampo_core.report.figures import SHARE_AXIS, Figure, Trace, band, colour, look, rounded
from ampo_core.report.html import folded, paragraph
from ampo_core.report.marks import footnotes, signed
from ampo_core.report.page import Section
from ampo_core.report.scores import MACRO, Estimate, Row, Scores
from ampo_core.report.tables import NOTHING, Column, Table, interval, points, share

MOST_TRIES, MOST_TICKS = 4, 10
"""The k of pass@k that a table has columns for, and a figure marks; the curve has all of them."""


def evaluation_sections(scores: Scores, prefix: str = "") -> list[Section]:
    """The figures and the table of one evaluation; `prefix` keeps ids apart where a page has several."""
    title = f"Evaluation: {scores.title}" if prefix else "Evaluation"
    caption = f"Shares in percent; brackets: {scores.around}"
    table = models_and_sets(scores, caption=caption).html()
    readings = folded("Differences in words", "".join(map(paragraph, scores.readings)))
    after = table + readings + spent_table(scores.budgets, scores.changed)
    sections = [Section(f"{prefix}evaluation", title, figures=[_sets_figure(scores, prefix)], after=after)]
    curves = pass_figures(scores, prefix)
    if curves:
        sections.append(Section(f"{prefix}pass", "pass@k" + (f": {scores.title}" if prefix else ""), figures=curves))
    return sections


def models_and_sets(scores: Scores, *, title: str = "", caption: str = "") -> Table[Row]:
    """A row a model and set; of a long pass@k curve some places."""
    rows, baseline = scores.rows, scores.baseline
    tries = some_of(sorted({k for row in rows for k in row.pass_at}), MOST_TRIES)
    samples = {row.samples for row in rows}
    columns: list[Column[Row]] = [
        Column("model", lambda row: signed(row.model, scores.changed), text=True),
        Column("set", lambda row: _set_title(row.set), text=True, brief=lambda row: row.set),
        Column("questions", lambda row: f"{row.questions:g}"),
        Column("samples", lambda row: str(row.samples or NOTHING), wide=True),
        Column(f"avg@{samples.pop()}" if len(samples) == 1 else "avg@k", lambda row: interval(row.average)),
        *map(_tried, tries),
        Column("length", lambda row: f"{row.measured['length_mean']:.1f}"),
        Column("cut off", lambda row: share(row.measured["truncated"])),
        Column("entropy", lambda row: f"{row.measured['entropy']:.3f}" if "entropy" in row.measured else NOTHING),
    ]
    if baseline is not None and any(row.difference for row in rows):
        columns.append(Column(f"against {baseline}", lambda row: points(row.difference)))
    return Table(columns, rows, title, caption, footnotes(scores.changed), blocks=True)


def pass_figures(scores: Scores, prefix: str = "") -> list[Figure]:
    """pass@k over k, a figure a set; avg@K is pass@1. A set with only one k has none."""
    figures = [_pass_figure(scores, name, prefix) for name in scores.sets]
    return [figure for figure in figures if figure is not None]


def _tried(k: int) -> Column[Row]:
    def value(row: Row) -> str:
        return share(row.pass_at[k].value if k in row.pass_at else None)

    return Column(f"pass@{k}", lambda row: interval(row.pass_at.get(k)), brief=value)


def _sets_figure(scores: Scores, prefix: str) -> Figure:
    traces: list[Trace] = []
    for model in scores.models:
        found = {name: row.average for name in scores.sets if (row := scores.of(model, name)) is not None}
        up = [rounded(estimate.high - estimate.value) for estimate in found.values()]
        down = [rounded(estimate.value - estimate.low) for estimate in found.values()]
        whiskers = {"type": "data", "symmetric": False, "color": "$text/0.7", "thickness": 1.2, "width": 3}
        traces.append({
            "type": "bar",
            "name": model,
            "x": [_set_title(name) for name in found],
            "y": [rounded(estimate.value) for estimate in found.values()],
            "error_y": {**whiskers, "array": up, "arrayminus": down},
            "marker": {"color": colour(scores.order(model), 0.85)},
        })  # fmt: skip
    layout = {"barmode": "group", "showlegend": True, "hovermode": "closest", "yaxis": SHARE_AXIS}
    layout["xaxis"] = {"type": "category", "nticks": 0}
    return Figure(f"{prefix}sets", "Accuracy by set", f"bars: {scores.around}", traces, layout, wide=True)


def _pass_figure(scores: Scores, name: str, prefix: str) -> Figure | None:
    rows = [row for model in scores.models if (row := scores.of(model, name)) is not None]
    curves = {row.model: {1: row.average, **row.pass_at} for row in rows}
    ticks = sorted({k for found in curves.values() for k in found})
    if len(ticks) < 2:
        return None
    traces = [trace for model, found in curves.items() for trace in _curve(model, scores.order(model), found)]
    tried = some_of(ticks, MOST_TICKS)
    marks = {"tickmode": "array", "tickvals": tried, "ticktext": [str(k) for k in tried]}
    layout = {"showlegend": True, "xaxis": {"title": {"text": "k"}, "type": "log", **marks}, "yaxis": SHARE_AXIS}
    return Figure(f"{prefix}pass-{name}", f"pass@k, {_set_title(name)}", f"band: {scores.around}", traces, layout)


def _curve(model: str, order: int, found: Mapping[int, Estimate]) -> list[Trace]:
    tried = sorted(found)
    line: Trace = {"type": "scatter", "name": model, "x": tried, "legendgroup": model, "line": look(order)}
    line["mode"] = "lines+markers" if len(found) <= MOST_TICKS else "lines"
    line["marker"] = {"size": 6, "color": colour(order)}
    return band(line, order, [(found[k].low, found[k].value, found[k].high) for k in tried])


def some_of(tries: Sequence[int], most: int) -> list[int]:
    """At most `most` of the k of a long curve: its ends, and powers of two between them."""
    if len(tries) <= most:
        return list(tries)
    between = [k for k in tries[1:-1] if k & (k - 1) == 0] or tries[1:-1]
    every = -(-len(between) // max(1, most - 2))
    return [tries[0], *between[every - 1 :: every], tries[-1]]


def _set_title(name: str) -> str:
    return "mean over sets" if name == MACRO else name
