"""What the schema declares and a later release brings: a warning in `--check`, exit 2 in a real run."""

from __future__ import annotations

from collections.abc import Iterator

from ampo_core.config.jobs import Job, PoolJob, SftJob, SuiteJob, TrainJob
from ampo_core.config.nodes import KeyPath
from ampo_core.config.tree import DeepSpeedConfig

REPORT = "not yet: --report comes in a later release"


def not_yet(job: Job) -> list[tuple[KeyPath, str]]:
    """(key, what is not there yet and what to write instead) for all that `job` asks of a later release."""
    found = list(_job(job))
    if isinstance(job, (TrainJob, SftJob)):
        found += _deepspeed(job.deepspeed)
        if job.model.dtype == "bfloat16":
            found.append((("model", "dtype"), "training in bfloat16 with fp32 masters; use float32"))
    if isinstance(job, TrainJob) and job.objective.on_policy.importance_cap is not None:
        found.append((("objective", "on_policy", "importance_cap"), "importance weights; use null"))
    return [(path, f"not yet: {text}") for path, text in found]


def _job(job: Job) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(job, (PoolJob, SuiteJob)):
        yield ("job",), f"the job {job.job} comes in a later release"


def _deepspeed(config: DeepSpeedConfig) -> Iterator[tuple[KeyPath, str]]:
    if config.zero_stage > 0:
        yield ("deepspeed", "zero_stage"), f"ZeRO stage {config.zero_stage}; use 0"
    if config.offload_optimizer != "none":
        yield ("deepspeed", "offload_optimizer"), "offloading; use none"
    if config.offload_parameters != "none":
        yield ("deepspeed", "offload_parameters"), "offloading; use none"
