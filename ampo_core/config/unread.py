"""Options that every component of a kind has and that a job does not read: a warning for each that was written."""

from __future__ import annotations

from collections.abc import Iterator

from ampo_registry.specs import ComponentSpec, RewardSpec

from ampo_core.config.held_out import HeldOutConfig
from ampo_core.config.jobs import EvaluateJob, Job, PrepareJob, TrainJob
from ampo_core.config.nodes import Finding, KeyPath

_REWARD = ("format_weight", "repetition_penalty", "overlong_penalty")


def unread(job: Job) -> Iterator[Finding]:
    """A warning for each option of `job` that was set and that nothing reads. A null changes nothing and is fine."""
    resources = getattr(job, "resources", None)
    if resources is not None and resources.hostfile is not None and resources.nodes == 1:
        yield Finding(("resources", "hostfile"), "with resources.nodes = 1 nothing reads this", "warning")
    if isinstance(job, EvaluateJob) and not job.predictions:
        text = "an evaluate job takes its number of responses from evaluation.sets.NAME.samples"
        yield from _set(job.rollout, ("group_size",), ("rollout",), text)
        yield from _set(job.rollout, ("temperature",), ("rollout",), "an evaluate job reads evaluation.temperature")
        yield from _graded(job.reward, ("reward",))
        yield from _set_rewards(job.evaluation)
    elif isinstance(job, TrainJob) and job.evaluation is not None:
        yield from _set_rewards(job.evaluation)
    elif isinstance(job, PrepareJob):
        text = "prepare keeps what verifies as correct, whatever its reward; nothing reads this"
        yield from _set(job.reward, _REWARD, ("reward",), text)


def _set_rewards(evaluation: HeldOutConfig) -> Iterator[Finding]:
    for name, item in evaluation.sets.items():
        if item.reward is not None:
            yield from _graded(item.reward, ("evaluation", "sets", name, "reward"))


def _graded(reward: RewardSpec, path: KeyPath) -> Iterator[Finding]:
    yield from _set(reward, _REWARD, path, "an evaluation counts correct responses, not rewards; nothing reads this")


def _set(spec: ComponentSpec, options: tuple[str, ...], path: KeyPath, text: str) -> Iterator[Finding]:
    for option in options:
        if option in spec.model_fields_set and getattr(spec, option) is not None:
            yield Finding((*path, option), text, "warning")
