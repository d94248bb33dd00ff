"""From what a config calls a model to the folder that holds it.

Qwen/Qwen2.5-7B-Instruct              a Hub name
FOLDER with config.json               a model in Hugging Face format
runs/NAME                             a run folder: its final policy, once it is finished
runs/NAME@best, @latest, @50          the policy of its best checkpoint, of its newest, of that of step 50
runs/NAME/checkpoints/step-000050     the policy of a checkpoint
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TypeVar

from ampo_registry.errors import ConfigError

from ampo_core.config.nodes import whole_number
from ampo_core.config.run_names import STATE, finished_output, read_entry, step_name, step_of
from ampo_core.config.tree import SampledModel

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
BEST, LATEST = "best", "latest"
M = TypeVar("M", bound=SampledModel)


def with_model_folder(model: M) -> M:
    """`model` with the folder in the place of a run or checkpoint that its path names. Raises as `model_folder`."""
    return model.model_copy(update={"path": model_folder(model.path)})


def model_folder(path: str) -> str:
    """The folder or Hub name of the model that `path` means; what is no run and no checkpoint comes back as it is.

    Raises ConfigError for a run that is not finished, has no such checkpoint, or makes no model.
    """
    folder, which = _split(path)
    if not os.path.isdir(folder) or _is_model(folder):
        if which is not None:
            raise ConfigError(f"{path}: {folder} is a model, not a run; @{which} chooses a checkpoint of a run")
        return path
    if _is_run(folder):
        return str(_final(folder) if which is None else _checkpoint(folder, which) / "policy")
    if which is None and os.path.isfile(folder / STATE):
        return str(_policy_of(folder))
    return path


def config_file(path: str) -> Path | None:
    """The config.json of the model `path`, where it is on this machine: in its folder, or in the Hub's cache."""
    try:
        folder = Path(model_folder(path))
    except ConfigError:
        return None
    return folder / "config.json" if _is_model(folder) else cached_config(path)


def cached_config(path: str) -> Path | None:
    """The config.json of the Hub name `path` in the Hugging Face cache, if there is a snapshot."""
    if not HUB_NAME.fullmatch(path):
        return None
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub") / f"models--{path.replace('/', '--')}"
    return next(iter(sorted(cache.glob("snapshots/*/config.json"))), None)


def _split(path: str) -> tuple[Path, str | None]:
    """(folder, what stands behind the last @), which is None where there is no such folder before it."""
    before, at, which = path.rpartition("@")
    if at and not os.path.exists(path) and os.path.isdir(before):
        return Path(before), which
    return Path(path), None


def _is_model(folder: Path) -> bool:
    return os.path.isfile(folder / "config.json")  # which is False for what cannot be looked at, where Path raises


def _is_run(folder: Path) -> bool:
    return os.path.isfile(folder / "config.yaml") and os.path.isfile(folder / "manifest.json")


def _final(run: Path) -> Path:
    output = finished_output(run)
    if output is None:
        steps = _steps(run)
        if not steps:
            raise ConfigError(f"{run} is not finished and has no checkpoint yet; let it go on, or name another model")
        raise ConfigError(
            f"{run} is not finished; let it go on, or name one of its checkpoints: {run}@{steps[-1]} is its newest, of "
            f"step {steps[-1]}"
        )
    if _is_model(output):
        return output
    if _is_model(output / "model"):
        raise ConfigError(f"{run} is a run without a policy; its start model is {output / 'model'}")
    raise ConfigError(f"{run} is a finished run that made no model: its output is {output}")


def _checkpoint(run: Path, which: str) -> Path:
    """The checkpoint `which` (best, latest or a step) of a run, finished or not."""
    folder, steps = run / "checkpoints", _steps(run)
    if not steps:
        raise ConfigError(f"{run}@{which}: {run} has no checkpoint")
    if which == LATEST:
        return folder / step_name(steps[-1])
    if which == BEST:
        if not (folder / "best.json").is_file():
            raise ConfigError(f"{run}@best: no checkpoint is the best one: the run has not measured checkpoint.best")
        return folder / str(read_entry(folder / "best.json", "checkpoint"))
    found = f"found those of steps {', '.join(map(str, steps))}"
    step = whole_number(which)
    if step is None:
        raise ConfigError(f"{run}@{which}: expected best, latest or a step behind the @; {found}")
    if step not in steps:
        raise ConfigError(f"{run}@{which}: there is no checkpoint of step {step}; {found}")
    return folder / step_name(step)


def _steps(run: Path) -> list[int]:
    folders = (run / "checkpoints").glob("step-*")
    return sorted(step_of(folder) for folder in folders if _is_model(folder / "policy"))


def _policy_of(checkpoint: Path) -> Path:
    if not _is_model(checkpoint / "policy"):
        raise ConfigError(f"{checkpoint} is a checkpoint without a policy/ folder; it is not whole")
    return checkpoint / "policy"
