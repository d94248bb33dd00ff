"""What the schema declares and a later release brings: a warning in `--check`, exit 2 in a real run."""

from __future__ import annotations

from ampo_core.config.jobs import Job, PoolJob, SuiteJob
from ampo_core.config.nodes import KeyPath

REPORT = "not yet: --report comes in a later release"


def not_yet(job: Job) -> list[tuple[KeyPath, str]]:
    """(key, what is not there yet) for all that `job` asks of a later release."""
    if isinstance(job, (PoolJob, SuiteJob)):
        return [(("job",), f"not yet: the job {job.job} comes in a later release")]
    return []
