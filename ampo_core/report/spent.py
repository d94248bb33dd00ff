"""What a run spent, and beside it what the runs spent whose checkpoints it started from, each up to that checkpoint."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError

from ampo_core.report.budget import TRAINED, Budget, read_budget
from ampo_core.report.lineage import lineage, run_of_policy
from ampo_core.run.changes import read_config, read_manifest
from ampo_core.run.progress import shown_seconds


@dataclass(frozen=True, slots=True)
class Spent:
    """`own` is the run's, `before` that of the runs that it was made from: without `runs` and `missing` there are none.

    A start checkpoint whose run is gone or cannot be read stands in `missing` of `before`.
    """

    own: Budget
    before: Budget = field(default_factory=Budget)

    @property
    def total(self) -> Budget:
        """Both together."""
        return self.own + self.before

    @property
    def made_from(self) -> str:
        """What the runs before it spent, with their names; empty without any."""
        names = ", ".join(Path(folder).name for folder in self.before.runs)
        count = f"{len(self.before.runs)} runs ({names})" if len(self.before.runs) > 1 else names
        if not names:
            return f"not counted, for it is not there: {', '.join(self.before.missing)}" if self.before.missing else ""
        return f"{count}: {self.before.line()}"

    @property
    def together(self) -> str:
        """The sum over all runs that are there; empty for a run alone."""
        if not self.before.runs:
            return ""
        return replace(self.total, missing=(), seconds=added(self.own.seconds, self.before.seconds)).line()

    def lines(self) -> list[str]:
        """For a person: the run's own figures, what it was made from, and the sum, a line each."""
        parts = {"made from ": self.made_from, "together: ": self.together}
        return [self.own.line(), *(f"{name}{text}" for name, text in parts.items() if text)]

    def without_time(self) -> Spent:
        """All but the seconds, which differ between equal runs."""
        return Spent(replace(self.own, seconds=None), replace(self.before, seconds=None))

    def as_json(self) -> dict[str, Any]:
        """The fields of the total, and those of both parts as `own` and `before`, as JSON types."""
        return {**self.total.as_json(), "own": self.own.as_json(), "before": self.before.as_json()}


def added(own: float | None, before: float | None) -> float | None:
    """Both times together as a reader adds them up from what is shown of each."""
    return None if own is None or before is None else shown_seconds(own) + shown_seconds(before)


def read_spent(run_folder: Path, step: int | None = None, *, without: Collection[Path] = ()) -> Spent:
    """What the train or sft run in `run_folder` spent up to and including `step`, and the runs before it.

    The runs in the folders `without` are left out: what all that are compared have in common. A pipeline's is that of
    its last stage that trained. Raises ConfigError as `read_budget` does, for the run itself.
    """
    run_folder = _trained(run_folder)
    line = lineage(run_folder, step)
    own, before = read_budget(run_folder, step), Budget()
    shared = {folder.resolve() for folder in without}
    for folder, last in line.runs[1:]:
        if folder.resolve() in shared:
            continue
        try:
            before += read_budget(folder, last)
        except ConfigError as error:
            before = replace(before, missing=(*before.missing, str(error)))
    return Spent(own, before if line.complete else replace(before, missing=(*before.missing, line.base)))


def policy_spent(model: Path) -> Spent | None:
    """`read_spent` of the run that wrote the policy folder `model`, up to its checkpoint; None for other models."""
    origin = run_of_policy(model)
    return None if origin is None else read_spent(*origin)


def _trained(run_folder: Path) -> Path:
    """The run folder itself, or that of a pipeline's last stage that is a train or sft job."""
    if read_manifest(run_folder).get("job") != "pipeline":
        return run_folder
    stages = [run_folder / str(stage["name"]) for stage in read_config(run_folder).get("stages") or ()]
    trained = [stage for stage in stages if stage.is_dir() and read_manifest(stage).get("job") in TRAINED]
    if not trained:
        raise ConfigError(f"{run_folder}: no stage of this pipeline has trained a model, so it has no budget")
    return trained[-1]
