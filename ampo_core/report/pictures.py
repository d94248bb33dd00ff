"""Figures of lines as one PNG: what the page's script draws with plotly.js, drawn by matplotlib.

For a PNG plotly would need a browser. Reads of plotly's terms those that the figures here use:
lines, markers, bands, ticks, titles and logarithmic axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ampo_core.report.figures import COLOURS, DASHES, Figure, Line, Trace, figures_of, held_out_panels
from ampo_core.report.training import GUIDANCE, LEARNING

COLUMNS = 3
SIZE = {"width": 400, "height": 280}
"""Of a figure whose layout does not say, in pixels."""
INCH, POINTS = 96, 0.75
"""Pixels an inch, and points a pixel."""
TRAINING = ("reward/accuracy", "guidance/triggered", "response/length_mean", "policy/entropy")
_STYLES = dict(zip(DASHES, ("-", "--", "-.", ":"), strict=True))
_MARKERS = {"circle": "o", "line-ns": "|"}


def training_figures(lines: Sequence[Line]) -> list[Figure]:
    """Held-out accuracy, and the metrics of TRAINING, as far as some run has them."""
    panels = {panel.metric: panel for panel in (*LEARNING, *GUIDANCE)}
    return figures_of((*held_out_panels(lines), *(panels[metric] for metric in TRAINING)), lines)


def draw(figures: Sequence[Figure], path: Path) -> None:
    """Draw `figures` side by side into `path` (PNG) with one legend for all, each as large as its layout says."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Picture

    columns = min(COLUMNS, math.ceil(math.sqrt(max(1, len(figures)))))
    rows = max(1, math.ceil(len(figures) / columns))
    width, height = (max((f.layout.get(k, n) for f in figures), default=n) / INCH for k, n in SIZE.items())
    picture = Picture(figsize=(width * columns, height * rows + 0.5), layout="constrained")
    FigureCanvasAgg(picture)
    legend: dict[str, Any] = {}
    for place, figure in enumerate(figures, start=1):
        axes = picture.add_subplot(rows, columns, place)
        for i, trace in enumerate(figure.traces):
            drawn = _trace(axes, trace, figure.traces[i - 1])
            if "name" in trace:
                legend[trace["name"]] = drawn
        _dress(axes, figure)
    if legend:
        handles = list(legend.values())
        picture.legend(handles=handles, loc="outside lower center", ncols=min(len(legend), 6), frameon=False)
    picture.savefig(path, dpi=150)


def _trace(axes: Any, trace: Trace, before: Trace) -> Any:
    """Draw a trace; one that is filled goes up from the one before it."""
    line, marker = trace.get("line", {}), trace.get("marker", {})
    if trace.get("fill") == "tonexty":
        colour, opacity = _colour(trace["fillcolor"])
        axes.fill_between(trace["x"], before["y"], trace["y"], color=colour, alpha=opacity, linewidth=0)
    colour, opacity = _colour((line or marker)["color"])
    (drawn,) = axes.plot(
        trace["x"],
        trace["y"],
        color=colour,
        alpha=opacity,
        label=trace.get("name"),
        linestyle=_STYLES[line.get("dash", "solid")] if "lines" in trace["mode"] else "",
        linewidth=POINTS * line.get("width", 2),
        marker=_MARKERS[marker.get("symbol", "circle")] if "markers" in trace["mode"] else "",
        markersize=POINTS * marker.get("size", 6),
        markeredgewidth=POINTS * marker.get("line", {}).get("width", 1),
    )
    return drawn


def _dress(axes: Any, figure: Figure) -> None:
    axes.set_title(figure.title, fontsize=10)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    for name, axis in ((name, figure.layout.get(f"{name}axis", {})) for name in "xy"):
        getattr(axes, f"set_{name}label")(axis.get("title", {}).get("text", ""), fontsize=9)
        if axis.get("type") == "log":
            axes.set(**{f"{name}scale": "log"})
            axes.minorticks_off()
        if "tickvals" in axis:
            axes.set(**{f"{name}ticks": axis["tickvals"], f"{name}ticklabels": axis["ticktext"]})
        if "range" in axis:
            axes.set(**{f"{name}lim": axis["range"]})
        if axis.get("rangemode") == "tozero":
            axes.set(**{f"{name}lim": (-0.03 * max(axes.get_ylim()[1], 0.1), None)})


def _colour(token: str) -> tuple[str, float]:
    """The colour and the opacity of $PLACE/OPACITY."""
    place, _, opacity = token.removeprefix("$").partition("/")
    return COLOURS[int(place)], float(opacity or 1)
