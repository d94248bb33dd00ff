"""What lies where in the folder of a run, as far as a config may name it: checkpoints, and the output of the run."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ampo_registry.errors import ConfigError

STATE = "state.json"
"""In the folder of a checkpoint: what a run needs to go on, as far as it is plain JSON."""


def step_name(step: int) -> str:
    """The folder name of a step's checkpoint: step-000050."""
    return f"step-{step:06d}"


def step_of(checkpoint: Path) -> int:
    """The step of a checkpoint's folder."""
    number = checkpoint.name.removeprefix("step-")
    if not number.isdecimal():
        raise ConfigError(f"{checkpoint} is not a checkpoint; move it out of that folder")
    return int(number)


def finished_output(run: Path) -> Path | None:
    """The output of the run in the folder `run` if its `done` marker stands, else None."""
    marker = run / "done"
    if not marker.exists():
        return None
    return Path(os.path.normpath(run / json.loads(marker.read_text(encoding="utf-8"))["output"]))
