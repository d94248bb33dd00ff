"""Training curves of several runs as small multiples in one PNG."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError

from ampo_core.run.files import metrics_lines

# Okabe and Ito's palette without yellow: told apart with any colour vision; the line style says it once more.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STYLES = ("-", "--", "-.", ":")
TRAINING_PANELS = {
    "reward/accuracy": "accuracy of the rollouts",
    "guidance/triggered": "share of groups with guidance",
    "response/length_mean": "response length (tokens)",
    "policy/entropy": "policy entropy (nats)",
}
COLUMNS = 3
# Evaluations come every few steps and are drawn as points; noisier step metrics get a running mean of this share.
SMOOTHING_SHARE = 0.05

Series = list[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class RunCurves:
    """A run's metrics over its steps: name -> (step, value) pairs. What was not finite is left out.

    `left_out` counts those values by metric; `torn` says that the last line was not whole.
    """

    name: str
    series: Mapping[str, Series]
    left_out: Mapping[str, int] = field(default_factory=dict)
    torn: bool = False


def check_runs(folders: Mapping[str, str]) -> None:
    """Raise ConfigError for a run folder of `comparison.curves` without metrics."""
    for name, folder in folders.items():
        if not (Path(folder) / "metrics.jsonl").is_file():
            raise ConfigError(f"comparison.curves.{name}: {folder} is no run folder, it holds no metrics.jsonl")


def read_run(name: str, folder: Path) -> RunCurves:
    """Read `folder`/metrics.jsonl; raises ConfigError, with the line, where it is not one JSON object a line.

    A last line without its newline is left out: a run may be writing it just now.
    """
    path = folder / "metrics.jsonl"
    series: dict[str, Series] = {}
    left_out: Counter[str] = Counter()
    end = 0
    for line in metrics_lines(path):
        end, step = line.start + line.length, line.value.pop("step")
        for metric, value in line.value.items():
            if isinstance(value, int | float) and math.isfinite(value):
                series.setdefault(metric, []).append((step, float(value)))
            else:
                left_out[metric] += 1
    return RunCurves(name, series, left_out, torn=end < path.stat().st_size)


def draw_curves(runs: Sequence[RunCurves], path: Path) -> list[str]:
    """Draw every panel that some run has numbers for into `path` (PNG); returns the metrics drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = choose_panels(runs)
    columns = min(COLUMNS, math.ceil(math.sqrt(max(1, len(panels)))))
    rows = max(1, math.ceil(len(panels) / columns))
    figure = Figure(figsize=(4.2 * columns, 2.9 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (metric, title) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, place)
        for order, run in enumerate(runs):
            _draw(axes, run.series.get(metric, []), order, measured_rarely=metric.startswith("eval/"))
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if _is_share(metric):
            axes.set_ylim(bottom=-0.03 * max(axes.get_ylim()[1], 0.1))
    if panels:
        figure.legend(handles=_legend(runs), loc="outside lower center", ncols=min(len(runs), 6), frameon=False)
    figure.savefig(path, dpi=150)
    return list(panels)


def choose_panels(runs: Sequence[RunCurves]) -> dict[str, str]:
    """metric -> title: held-out accuracy of every set first, the mean over sets, then the training metrics."""
    names = {metric for run in runs for metric in run.series}
    sets = sorted(name for name in names if name.startswith("eval/") and "/avg@" in name)
    panels = {name: "held-out " + name.removeprefix("eval/").replace("/", ", ") for name in sets}
    if len(sets) > 1 and "eval/macro/avg" in names:
        panels["eval/macro/avg"] = "held-out, mean over sets"
    return {**panels, **{name: title for name, title in TRAINING_PANELS.items() if name in names}}


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """The mean over a window of `width` (odd) around each value; at the ends over what there is of it."""
    half = width // 2
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [math.fsum(window) / len(window) for window in windows]


def _draw(axes: Any, series: Series, order: int, *, measured_rarely: bool) -> None:
    if not series:
        return
    steps, values = [step for step, _ in series], [value for _, value in series]
    look = _look(order)
    if measured_rarely:
        axes.plot(steps, values, **look, marker="o", markersize=3)
        return
    axes.plot(steps, values, color=look["color"], alpha=0.25, linewidth=0.8)
    width = max(1, round(SMOOTHING_SHARE * len(values)) | 1)
    axes.plot(steps, running_mean(values, width), **look)


def _look(order: int) -> dict[str, Any]:
    return {"color": COLOURS[order % len(COLOURS)], "linestyle": STYLES[order % len(STYLES)], "linewidth": 1.8}


def _legend(runs: Sequence[RunCurves]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], label=run.name, **_look(order)) for order, run in enumerate(runs)]


def _is_share(metric: str) -> bool:
    return metric in ("reward/accuracy", "guidance/triggered") or metric.startswith("eval/")
