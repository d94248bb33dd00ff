"""Where a run comes from: the runs whose checkpoints it started from, back to a model that is of no run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError

from ampo_core.run.changes import read_config
from ampo_core.run.files import metrics_lines
from ampo_core.run.folder import METRICS

Origin = tuple[Path, int | None]
"""A run's folder, and the step up to which it counts; None = all of it."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """`runs`, the run itself first, and `base`, the model that the oldest of them started from, as its config has it.

    `complete` is False if `base` is a checkpoint of a run that is not there any more.
    """

    runs: tuple[Origin, ...]
    base: str
    complete: bool = True


def lineage(run_folder: Path, step: int | None = None) -> Lineage:
    """The lineage of the train or sft run in `run_folder`, whose own part ends at `step`.

    A relative `model.path` is looked for in the working directory, then around the run's folder. Raises ConfigError
    if the config of the run itself cannot be read.
    """
    runs: list[Origin] = [(run_folder, step)]
    start = start_model(run_folder)
    while _checkpoint_of(start) is not None:
        found = next((path for path in _candidates(start, runs[-1][0]) if path.exists()), None)
        origin = None if found is None else run_of_policy(found)
        if origin is None or any(origin[0].samefile(folder) for folder, _ in runs):
            return Lineage(tuple(runs), str(start), complete=False)
        try:
            before = start_model(origin[0])
        except ConfigError:
            return Lineage(tuple(runs), str(start), complete=False)
        runs.append(origin)
        start = before
    return Lineage(tuple(runs), str(start))


def run_of_policy(model: Path) -> tuple[Path, int] | None:
    """(run folder, step) of the checkpoint that the model folder `model` stands in; None if it stands in none."""
    place = _checkpoint_of(model) or _checkpoint_of(model.resolve())
    if place is None or not (place[0] / "manifest.json").is_file():
        return None
    return place


def start_model(run_folder: Path) -> Path:
    """`model.path` of the run's config, as it stands there. Raises ConfigError if there is none."""
    try:
        return Path(str(read_config(run_folder)["model"]["path"]))
    except (KeyError, TypeError):
        raise ConfigError(f"{run_folder / 'config.yaml'} names no model.path") from None


def read_metrics(run_folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; none yet if there is no such file. A last line that is cut off is left out.

    Raises ConfigError for any other line that is not a JSON object with a step.
    """
    path = run_folder / METRICS
    try:
        return [line.value for line in metrics_lines(path)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _checkpoint_of(model: Path) -> tuple[Path, int] | None:
    """(run folder, step) if the path is RUN/checkpoints/step-N/policy."""
    step = model.parent.name.removeprefix("step-")
    if model.name != "policy" or model.parent.parent.name != "checkpoints" or not step.isdecimal():
        return None
    return model.parent.parent.parent, int(step)


def _candidates(model: Path, run_folder: Path) -> Iterator[Path]:
    """Where a relative `model.path` may lie: the working directory, and the run's folder with those around it."""
    yield model
    if not model.is_absolute():
        folder = run_folder.resolve()
        yield from (place / model for place in (folder, *folder.parents))
