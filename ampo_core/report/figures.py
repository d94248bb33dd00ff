"""Metrics as figures: plain data for the plotting library, without colours of their own.

A colour is written `$0`, `$1`, … (a series), `$muted` or `$text`, with `/0.2` behind it for its opacity; the page's
script puts in what the light or the dark theme has for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median
from typing import Any

from ampo_core.config.metric_names import MACRO
from ampo_core.report.curves import RunCurves, Series

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito's palette without yellow: told apart with any colour vision; the dashes say it once more."""
DASHES = ("solid", "dash", "dashdot", "dot")
SMOOTHING_SHARE = 0.05
SPIKES = 20.0
"""A metric whose largest value is this many times its median is drawn on a logarithmic axis."""
BAND = 0.18
"""The opacity of a band around a line."""
SHARE_AXIS = {"tickformat": ".2~%", "hoverformat": ".3~%", "rangemode": "tozero"}

Trace = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Panel:
    """How a metric is shown. `paper` names the figure of the AMPO paper that shows the same."""

    metric: str
    title: str
    unit: str = ""
    share: bool = False
    may_be_logarithmic: bool = False
    paper: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """What the page draws: `traces` and `layout` in plotly.js's terms."""

    id: str
    title: str
    caption: str
    traces: Sequence[Trace]
    layout: Mapping[str, Any] = field(default_factory=dict)
    wide: bool = False

    def as_json(self) -> dict[str, Any]:
        """What the page's script reads."""
        return {"id": self.id, "data": list(self.traces), "layout": dict(self.layout)}


@dataclass(frozen=True, slots=True)
class Line:
    """The curves of one run, or of one run's seeds, and its place among those drawn together."""

    name: str
    curves: Sequence[RunCurves]
    order: int = 0

    def series(self, metric: str) -> list[Series]:
        """The metric's series of each seed that has it."""
        return [found for curves in self.curves if (found := curves.series.get(metric))]


def held_out_panels(lines: Sequence[Line]) -> list[Panel]:
    """The accuracy on every held-out set, then the mean over sets and the means over groups of them."""
    names = sorted({name for line in lines for curves in line.curves for name in curves.series})
    sets = [name for name in names if name.startswith("eval/") and "/avg@" in name]
    panels = [Panel(name, "Held-out " + name.removeprefix("eval/").replace("/", ", "), share=True) for name in sets]
    if len(sets) > 1 and MACRO in names:
        panels.append(Panel(MACRO, "Held-out, mean over sets", share=True, paper="Figure 2"))
    groups = [name for name in names if name.startswith("eval/") and name.endswith("/avg") and name != MACRO]
    return panels + [Panel(name, f"Held-out, mean over {name.split('/')[1]}", share=True) for name in groups]


def figures_of(panels: Sequence[Panel], lines: Sequence[Line]) -> list[Figure]:
    """The figures of those metrics that some run has."""
    return [figure for panel in panels if (figure := metric_figure(panel, lines)) is not None]


def metric_figure(panel: Panel, lines: Sequence[Line]) -> Figure | None:
    """One metric of all runs, None if none of them has a number for it.

    A run of one seed is a faint line and its running mean; several seeds are the mean of their running means and a
    band from the lowest to the highest.
    """
    rarely = panel.metric.startswith("eval/")
    traces: list[Trace] = []
    values: list[float] = []
    for line in lines:
        found = line.series(panel.metric)
        values += [value for series in found for _, value in series]
        if len(line.curves) > 1 and found:
            traces += _seeds(line, found, rarely)
        elif found:
            traces += _single(line, found[0], rarely)
    if not traces:
        return None
    logarithmic = panel.may_be_logarithmic and min(values) > 0 and max(values) > SPIKES * median(values)
    layout = axes(panel.unit, share=panel.share, logarithmic=logarithmic)
    return Figure(panel.metric, panel.title, _caption(panel, lines, logarithmic), traces, layout)


def with_changes(figure: Figure, steps: Sequence[int]) -> Figure:
    """A figure over steps, with a line after each of `steps`: there the run went on with changes."""
    if not steps or figure.layout.get("xaxis", {}).get("title", {}).get("text") != "step":
        return figure
    look = {
        "type": "line",
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": "$text/0.6", "width": 1, "dash": "dot"},
    }
    lines = [{**look, "x0": step + 0.5, "x1": step + 0.5} for step in steps]
    return replace(figure, layout={**figure.layout, "shapes": lines})


def axes(unit: str = "", *, share: bool = False, logarithmic: bool = False) -> dict[str, Any]:
    """The layout of a figure over steps."""
    y: dict[str, Any] = {"title": {"text": unit}} if unit and not share else {}
    if share:
        y |= SHARE_AXIS
    if logarithmic:
        y |= {"type": "log", "dtick": 1}
    return {"xaxis": {"title": {"text": "step"}}, "yaxis": {"hoverformat": ".4g", **y}}


def smoothed(series: Series) -> list[float]:
    """The running mean of a series of steps."""
    return running_mean([value for _, value in series], smoothing_width(len(series)))


def smoothing_width(count: int) -> int:
    """Over how many of `count` steps a running mean goes: an odd number."""
    return max(1, round(SMOOTHING_SHARE * count) | 1)


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """The mean over a window of `width` (odd) around each value; at the ends over what there is of it."""
    half = width // 2
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [math.fsum(window) / len(window) for window in windows]


def look(order: int) -> dict[str, Any]:
    """Colour and dash of the run at a place: what is told apart by one is told apart by the other too."""
    return {"color": colour(order), "dash": DASHES[order % len(DASHES)], "width": 2}


def colour(order: int, opacity: float | None = None) -> str:
    """The colour of a place among series."""
    return f"${order % len(COLOURS)}" + ("" if opacity is None else f"/{opacity}")


def stacked(name: str, order: int, series: Series) -> Trace:
    """A layer of a stack over steps."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [step for step, _ in series],
        "y": [rounded(value) for _, value in series],
        "stackgroup": "all",
        "line": {"width": 0.8, "color": colour(order)},
        "fillcolor": colour(order, 0.55),
    }


def band(line: Trace, order: int, found: Sequence[tuple[float, float, float]]) -> list[Trace]:
    """`line` over x with a band around it; `found` [x] are (low, value, high)."""
    low, value, high = ([rounded(numbers[i]) for numbers in found] for i in range(3))
    edge = {key: item for key, item in line.items() if key != "marker"}
    edge |= {"mode": "lines", "showlegend": False, "hoverinfo": "skip", "line": {"width": 0, "color": colour(order)}}
    filled = {"fill": "tonexty", "fillcolor": colour(order, BAND)}
    return [{**edge, "y": low}, {**edge, "y": high, **filled}, {**line, "y": value}]


def rounded(value: float) -> float:
    """Five digits are more than a figure shows, and a third of the bytes."""
    return float(f"{value:.5g}")


def last_part(series: Series) -> float:
    """The mean of the last tenth of a series, at least one value: where a noisy metric ended."""
    return fmean(value for _, value in series[-max(1, math.ceil(len(series) / 10)) :])


def shown(value: float | None, *, share: bool = False, digits: int = 3) -> str:
    """A number for a person; a dash where there is none."""
    if value is None:
        return "–"
    if share:
        return f"{100 * value:.1f} %"
    if value != 0 and abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def _single(line: Line, series: Series, rarely: bool) -> list[Trace]:
    drawn = _trace(line, [step for step, _ in series], rarely)
    values = [rounded(value) for _, value in series]
    if rarely:
        return [{**drawn, "y": values}]
    if len(series) == 1:
        return [{**drawn, "y": values, "mode": "markers", "marker": {"size": 7, "color": colour(line.order)}}]
    raw = {**drawn, "y": values, "line": {"color": colour(line.order, 0.28), "width": 1}, "hoverinfo": "skip"}
    raw["meta"] = {**drawn["meta"], "raw": True}
    return [raw, {**drawn, "y": [rounded(value) for value in smoothed(series)]}]


def _seeds(line: Line, found: Sequence[Series], rarely: bool) -> list[Trace]:
    by_step: dict[int, list[float]] = {}
    for series in found:
        values = [value for _, value in series] if rarely else smoothed(series)
        for (step, _), value in zip(series, values, strict=True):
            by_step.setdefault(step, []).append(value)
    steps = sorted(by_step)
    around = [(min(by_step[step]), fmean(by_step[step]), max(by_step[step])) for step in steps]
    return band(_trace(line, steps, rarely), line.order, around)


def _trace(line: Line, steps: Sequence[int], rarely: bool) -> Trace:
    """The line of a run without its values; of what is measured rarely each is marked."""
    marked = {"mode": "lines+markers", "marker": {"size": 6, "color": colour(line.order)}}
    return {
        "type": "scatter",
        "mode": "lines",
        "name": line.name,
        "x": list(steps),
        "line": look(line.order),
        "meta": {"run": line.order},
        "showlegend": False,
        **(marked if rarely else {}),
    }


def _caption(panel: Panel, lines: Sequence[Line], logarithmic: bool) -> str:
    parts = []
    if len(lines) == 1 and len(lines[0].curves) == 1:
        series = lines[0].series(panel.metric)[0]
        first, last = (shown(value, share=panel.share) for value in (series[0][1], last_part(series)))
        parts.append(f"{first} → {last}" if len(series) > 1 else first)
    if logarithmic:
        parts.append("logarithmic axis")
    if panel.paper:
        parts.append(f"as in {panel.paper} of the paper")
    return " · ".join(parts)
