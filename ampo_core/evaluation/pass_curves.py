"""pass@k over k of several models as small multiples, a set each, in one PNG."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ampo_core.evaluation.compare import Comparison, Row
from ampo_core.report.curves import COLOURS, COLUMNS, STYLES


def draw_pass_curves(comparison: Comparison, path: Path) -> list[str]:
    """Draw every set with two or more k into `path`, with 95 % intervals; returns the sets drawn, no file for none."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = [name for name in dict.fromkeys(row.set for row in comparison.rows) if _has_curve(comparison, name)]
    if not drawn:
        return []
    columns = min(COLUMNS, math.ceil(math.sqrt(len(drawn))))
    rows = math.ceil(len(drawn) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.1 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    handles: dict[str, Any] = {}
    for place, name in enumerate(drawn, start=1):
        axes = figure.add_subplot(rows, columns, place)
        for order, model in enumerate(comparison.models):
            row = next(row for row in comparison.rows if (row.model, row.set) == (model, name))
            handles[model] = _draw(axes, row, order)
        _dress(axes, name)
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=min(len(handles), 6), frameon=False)
    figure.savefig(path, dpi=150)
    return drawn


def _has_curve(comparison: Comparison, name: str) -> bool:
    return all(len(row.pass_at) > 1 for row in comparison.rows if row.set == name)


def _draw(axes: Any, row: Row, order: int) -> Any:
    tries = sorted(row.pass_at)
    found = [row.pass_at[k] for k in tries]
    colour = COLOURS[order % len(COLOURS)]
    axes.fill_between(tries, [e.low for e in found], [e.high for e in found], color=colour, alpha=0.15, linewidth=0)
    style = STYLES[order % len(STYLES)]
    values = [estimate.value for estimate in found]
    (line,) = axes.plot(tries, values, color=colour, linestyle=style, marker="o", markersize=3, label=row.model)
    return line


def _dress(axes: Any, name: str) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_title(f"{name}, pass@k", fontsize=10)
    axes.set_xlabel("k", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
