"""All jobs, by what `job:` calls them."""

from __future__ import annotations

from ampo_core.config.evaluate_job import EvaluateJob
from ampo_core.config.job import Job
from ampo_core.config.pipeline_job import PipelineJob
from ampo_core.config.pool_job import PoolJob
from ampo_core.config.prepare_job import PrepareJob
from ampo_core.config.sft_job import SftJob
from ampo_core.config.suite_job import SuiteJob
from ampo_core.config.train_job import TrainJob

__all__ = [
    "JOBS",
    "EvaluateJob",
    "Job",
    "PipelineJob",
    "PoolJob",
    "PrepareJob",
    "SftJob",
    "SuiteJob",
    "TrainJob",
]

JOBS: dict[str, type[Job]] = {
    "train": TrainJob,
    "sft": SftJob,
    "evaluate": EvaluateJob,
    "prepare": PrepareJob,
    "pool": PoolJob,
    "pipeline": PipelineJob,
    "suite": SuiteJob,
}
