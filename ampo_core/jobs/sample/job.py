"""Which jobs `--sample` can show, and where it goes."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path

from ampo_registry.errors import ConfigError, RunError

from ampo_core.config.jobs import Job
from ampo_core.config.load import LoadedConfig
from ampo_core.config.machines import under_launcher
from ampo_core.jobs.libraries import settle_libraries
from ampo_core.jobs.sample.document import Part, markdown, show
from ampo_core.run.disk import refusal
from ampo_core.run.environment import Environment
from ampo_core.run.files import write_atomically
from ampo_core.run.progress import say

MODULES = {"train": "ampo_core.jobs.sample.train", "evaluate": "ampo_core.jobs.sample.evaluate"}


def sample(loaded: LoadedConfig, environment: Environment, count: int, file: Path | None) -> None:
    """Show `count` questions of a job on the screen, and write them to `file` if there is one.

    Nothing else is left on the disk, and the run's folder is not touched. Raises ConfigError for a job that samples
    nothing, with what would work; and as the job itself for what it refuses.
    """
    check_sample(loaded.job, count, file)
    loaded.require_ready()
    settle_libraries()
    parts = list(_parts(loaded.job, environment, count))
    show(parts, environment.console)
    if file is not None:
        try:
            write_atomically(file, markdown(parts))
        except OSError as error:
            raise RunError(f"cannot write {file}: {refusal(file, error)}") from error
        say(environment.console, str(file))


def check_sample(job: Job, count: int, file: Path | None) -> None:
    """Raise ConfigError for what cannot be shown. Imports nothing heavy."""
    if count < 1:
        raise ConfigError(f"--sample: found {count}; at least 1 question")
    if file is not None and (file.suffix != ".md" or not file.absolute().parent.is_dir()):
        wanted = "a name that ends in .md" if file.suffix != ".md" else "a folder that is there"
        raise ConfigError(f"--file: found {file}; it writes Markdown and needs {wanted}")
    if under_launcher(os.environ):
        raise ConfigError("--sample runs as one process; start it without a launcher")
    if (reason := job.unshown()) is not None:
        raise ConfigError(f"--sample: {reason}")


def _parts(job: Job, environment: Environment, count: int) -> Iterator[Part]:
    machines = job.machines()
    if machines is not None and machines.devices * machines.nodes > 1:
        yield f"Sampled on one device; the run has {machines.devices * machines.nodes}."
    yield from importlib.import_module(MODULES[job.job]).parts_of(job, environment, count)
