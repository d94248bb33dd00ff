"""The metrics of a run over its steps, as metrics.jsonl holds them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ampo_registry.errors import ConfigError

from ampo_core.run.files import metrics_lines

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
