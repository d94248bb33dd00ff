"""Tracker `my_tracker`: all metrics in one CSV file of the run folder."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from ampo_registry import BuildContext, ComponentSpec, ConfigError, Tracker, TrackerSpec, hookimpl


class MyTracker(TrackerSpec):
    """A line of `my_tracker.csv` for each metric of each step: step, name, value."""

    type: Literal["my_tracker"] = "my_tracker"

    def build(self, context: BuildContext) -> Tracker:
        """Open the tracker; a run that goes on goes on with its file."""
        if context.run_dir is None:
            raise ConfigError("tracker my_tracker: needs a run folder")
        return Table(context.run_dir / "my_tracker.csv")


class Table:
    def __init__(self, path: Path) -> None:
        self.file = path.open("a", encoding="utf-8", newline="")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """The metrics of a step, by name."""
        csv.writer(self.file).writerows((step, name, value) for name, value in metrics.items())
        self.file.flush()

    def close(self) -> None:
        """The run is over."""
        self.file.close()


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """What this distribution brings."""
    return [MyTracker]
