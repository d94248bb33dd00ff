"""Training curves of a suite's runs: each the mean over its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ampo_core.evaluation.statistics import average
from ampo_core.report.curves import RunCurves, choose_panels, draw_curves, read_run
from ampo_core.run.folder import METRICS


def draw_training(runs: Sequence[tuple[str, Sequence[Path]]], path: Path) -> bool:
    """Draw the metrics of `runs`, (title, run folders of its seeds), into `path` (PNG); False if none has any."""
    found = [
        (title, [read_run(title, folder) for folder in folders if (folder / METRICS).is_file()])
        for title, folders in runs
    ]
    trained = [mean_curves(title, seeds) for title, seeds in found if seeds]
    shown = [run for run in trained if choose_panels([run])]
    return bool(shown) and bool(draw_curves(shown, path))


def mean_curves(title: str, seeds: Sequence[RunCurves]) -> RunCurves:
    """The mean over seeds of each metric, at the steps that all of those that log it have reached."""
    series = {}
    for metric in dict.fromkeys(name for run in seeds for name in run.series):
        values = [dict(run.series[metric]) for run in seeds if metric in run.series]
        steps = sorted(set.intersection(*(set(by_step) for by_step in values)))
        series[metric] = [(step, average([by_step[step] for by_step in values])) for step in steps]
    return RunCurves(title, series)
