"""Which module runs which job. A module is imported only when its job runs: it brings torch along."""

from __future__ import annotations

import importlib
from pathlib import Path

from ampo_registry.errors import NotYetError

from ampo_core.config.jobs import Job
from ampo_core.environment import Environment

MODULES = {
    "train": "ampo_core.train",
    "sft": "ampo_core.sft",
    "evaluate": "ampo_core.evaluate",
    "prepare": "ampo_core.prepare",
    "pipeline": "ampo_core.pipeline",
}


def run_job(job: Job, environment: Environment) -> Path | None:
    """Run `job` and return its output: the final `policy/` of train and sft, the `out` of prepare, else its folder.

    Raises NotYetError for a job of a later release, RunError where it fails, ConfigError where it cannot start.
    """
    if job.job not in MODULES:
        raise NotYetError(f"not yet: the job {job.job} comes in a later release")
    if job.job != "pipeline":  # whose stages are jobs of their own
        importlib.import_module("ampo_core.libraries").settle_libraries()
    output: Path | None = importlib.import_module(MODULES[job.job]).run(job, environment)
    return output
