"""Which module runs which job. A module is imported only when its job runs: it brings torch along."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from ampo_core.config.jobs import Job
from ampo_core.config.run_names import finished_output
from ampo_core.distributed.launch import plan_launch, run_ranks
from ampo_core.run.disk import speaking
from ampo_core.run.environment import Environment
from ampo_core.run.progress import say
from ampo_core.run.resume import look

MODULES = {
    "train": "ampo_core.train",
    "sft": "ampo_core.jobs.sft",
    "evaluate": "ampo_core.evaluation.job",
    "prepare": "ampo_core.jobs.prepare",
    "pool": "ampo_core.jobs.pool.job",
    "pipeline": "ampo_core.jobs.pipeline",
    "suite": "ampo_core.jobs.suite.job",
}


def run_job(job: Job, environment: Environment) -> Path | None:
    """Run `job` and return its output: the final `policy/` of train and sft, the `out` of prepare, else its folder.

    A job that asks for several devices runs in ranks of its own, which are started from here.

    A run that is finished already is left alone; an unfinished one of train and sft goes on from its last checkpoint,
    one of evaluate with what is not sampled yet, and one of prepare starts over. Raises RunError where it fails,
    ConfigError where it cannot start.
    """
    if not job.made_of_others and look(job, environment) == "finished":
        return _finished_already(job, environment)
    launch = plan_launch(job, os.environ)
    if launch is not None:
        return run_ranks(launch, job, environment)
    if not job.made_of_others:
        importlib.import_module("ampo_core.jobs.libraries").settle_libraries()
    with speaking(job.run.folder):
        output: Path | None = importlib.import_module(MODULES[job.job]).run(job, environment)
    return output


def _finished_already(job: Job, environment: Environment) -> Path | None:
    folder = job.run.folder
    output = finished_output(folder)
    say(environment.console, f"{folder} is finished already; its output is {output}")
    return output
