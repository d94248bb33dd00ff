"""What lies where in the folder of a run, as far as a config may name it: checkpoints, and the output of the run."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ampo_registry.errors import ConfigError

from ampo_core.config.nodes import whole_number

STATE = "state.json"
"""In the folder of a checkpoint: what a run needs to go on, as far as it is plain JSON."""


def step_name(step: int) -> str:
    """The folder name of a step's checkpoint: step-000050."""
    return f"step-{step:06d}"


def step_of(checkpoint: Path) -> int:
    """The step of a checkpoint's folder."""
    number = whole_number(checkpoint.name.removeprefix("step-"))
    if number is None:
        raise ConfigError(f"{checkpoint} is not a checkpoint; move it out of that folder")
    return number


def finished_output(run: Path) -> Path | None:
    """The output of the run in the folder `run` if its `done` marker stands, else None."""
    marker = run / "done"
    if not marker.exists():
        return None
    return Path(os.path.normpath(run / str(read_entry(marker, "output"))))


def read_entry(file: Path, key: str) -> object:
    """The entry `key` of a JSON file that a run has written. Raises ConfigError if there is none any more."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{file}: its {key} cannot be read ({type(error).__name__}: {error}); was it edited?"
        ) from None
