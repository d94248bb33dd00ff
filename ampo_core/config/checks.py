"""What one field alone cannot tell: rules between keys. Errors refuse a config, warnings are only said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ampo_registry.specs import AggregatorSpec, build_options

from ampo_core.config.jobs import EvaluateJob, Job, PipelineJob, PoolJob, SftJob, SuiteJob, TrainJob
from ampo_core.config.nodes import KeyPath, nearest
from ampo_core.config.tree import EvaluationConfig, ResourcesConfig

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that a config breaks, or a warning, at the key that is to be changed."""

    path: KeyPath
    text: str
    severity: Literal["error", "warning"] = "error"


def check_job(job: Job) -> list[Finding]:
    """All findings of a config that is valid field by field."""
    if isinstance(job, TrainJob):
        return [*_guidance(job), *_objective(job), *_sizes(job), *_training_data(job), *_checkpoint(job)]
    if isinstance(job, SftJob):
        return list(_sft(job))
    if isinstance(job, EvaluateJob):
        return [*_evaluation(job.evaluation), *_baseline(job)]
    if isinstance(job, PoolJob):
        return list(_unique([teacher.name for teacher in job.teachers], ("teachers",), "name"))
    if isinstance(job, PipelineJob):
        return list(_unique([stage.name for stage in job.stages], ("stages",), "name"))
    if isinstance(job, SuiteJob) and len(set(job.seeds)) < len(job.seeds):
        return [Finding(("seeds",), f"a seed stands twice in {job.seeds}")]
    return []


def _guidance(job: TrainJob) -> Iterator[Finding]:
    guidance, group_size = job.guidance, job.rollout.group_size
    if guidance is None:
        return
    weight, threshold = job.reward.format_weight, guidance.threshold
    if not weight < threshold <= 1.0 - weight + _ROUNDING:
        text = (
            f"found τ = {threshold:g} with λ = reward.format_weight = {weight:g}; "
            f"λ < τ <= 1-λ must hold: more than {weight:g}, at most {1.0 - weight:g}"
        )
        yield Finding(("guidance", "threshold"), text)
    if guidance.replacements > group_size:
        text = f"found {guidance.replacements}, more than the {group_size} rollouts of a group (rollout.group_size)"
        yield Finding(("guidance", "replacements"), text)
    off_policy = job.objective.off_policy
    if job.objective.scope == "batch" and off_policy.weight == "unit" and not _fixed_normaliser(off_policy.aggregator):
        text = (
            "unit with scope batch lets a single teacher answer among all questions of a mini-batch become the whole "
            "off-policy term; consider weight: proportional or scope: group"
        )
        yield Finding(("objective", "off_policy", "weight"), text, "warning")
    if off_policy.behaviour == "recorded":
        text = "recorded needs the teachers' per-token log-probs in the data; an answer without them stops the run"
        yield Finding(("objective", "off_policy", "behaviour"), text, "warning")
    elif off_policy.clip is not None:
        text = "the shaped ratio never exceeds 1 here, so this clip can only bind for negative advantages"
        yield Finding(("objective", "off_policy", "clip"), text, "warning")


def _fixed_normaliser(aggregator: AggregatorSpec) -> bool:
    """True iff the term is a plain sum over tokens, whatever the number of teacher answers."""
    options = build_options(aggregator)
    return options["type"] == "constant" and not options.get("per_sequence")


def _objective(job: TrainJob) -> Iterator[Finding]:
    for name, clip in (("on_policy", job.objective.on_policy.clip), ("off_policy", job.objective.off_policy.clip)):
        if clip is not None and clip[0] > 1.0:
            text = f"found {clip[0]:g} as the lower width; the ratio is cut at 1 - width, so at most 1 is meaningful"
            yield Finding(("objective", name, "clip"), text)
    on_policy = job.objective.on_policy
    if on_policy.dual_clip is not None and on_policy.clip is not None and on_policy.dual_clip <= 1 + on_policy.clip[1]:
        text = f"found {on_policy.dual_clip:g}, must be greater than 1 + the upper clip = {1 + on_policy.clip[1]:g}"
        yield Finding(("objective", "on_policy", "dual_clip"), text)
    if job.rollout.group_size == 1 and job.guidance is None:
        text = "a group of one rollout has nothing to be compared with: its advantage is always the same"
        yield Finding(("rollout", "group_size"), text, "warning")
    penalty = job.reward.overlong_penalty
    if penalty is not None and penalty.buffer > job.rollout.max_response_tokens:
        text = f"found {penalty.buffer}, more than rollout.max_response_tokens = {job.rollout.max_response_tokens}"
        yield Finding(("reward", "overlong_penalty", "buffer"), text)


def _sizes(job: TrainJob) -> Iterator[Finding]:
    training = job.training
    batch, minibatch = training.questions_per_batch, training.questions_per_minibatch
    if batch % minibatch:
        yield Finding(
            ("training", "questions_per_minibatch"), f"{minibatch} does not divide questions_per_batch = {batch}"
        )
    yield from _divides_over_ranks(minibatch, ("training", "questions_per_minibatch"), job.resources)
    longest = job.data.max_prompt_tokens + job.rollout.max_response_tokens
    if training.tokens_per_microbatch < longest:
        text = (
            f"found {training.tokens_per_microbatch}; one sequence may have {longest} tokens "
            f"(data.max_prompt_tokens {job.data.max_prompt_tokens} + "
            f"rollout.max_response_tokens {job.rollout.max_response_tokens})"
        )
        yield Finding(("training", "tokens_per_microbatch"), text)
    updates = training.steps * training.epochs_per_batch * max(1, batch // minibatch)
    yield from _warmup(training.warmup_steps, updates, ("training", "warmup_steps"))


def _training_data(job: TrainJob) -> Iterator[Finding]:
    weights, files = job.data.weights, job.data.train
    if weights is not None and len(weights) != len(files):
        yield Finding(("data", "weights"), f"found {len(weights)} weight(s) for {len(files)} file(s) of data.train")
    if job.evaluation is not None:
        yield from _evaluation(job.evaluation)


def _evaluation(evaluation: EvaluationConfig) -> Iterator[Finding]:
    for name, item in evaluation.sets.items():
        for k in item.pass_at:
            if k > item.samples:
                text = f"pass@{k} needs at least {k} samples, found samples = {item.samples}"
                yield Finding(("evaluation", "sets", name, "pass_at"), text)


def _checkpoint(job: TrainJob) -> Iterator[Finding]:
    best = job.checkpoint.best
    if best is None or not best.startswith("eval/") or job.evaluation is None:
        return
    metrics = ["eval/macro/avg"]
    for name, item in job.evaluation.sets.items():
        metrics += [f"eval/{name}/avg@{item.samples}", *(f"eval/{name}/pass@{k}" for k in item.pass_at)]
        metrics.append(f"eval/{name}/length_mean")
    if best not in metrics:
        yield Finding(("checkpoint", "best"), f"evaluation gives no metric {best}{nearest(best, metrics)}")


def _sft(job: SftJob) -> Iterator[Finding]:
    training = job.training
    if training.tokens_per_microbatch < job.data.max_tokens:
        longest = f"one example may have data.max_tokens = {job.data.max_tokens}"
        text = f"found {training.tokens_per_microbatch}; {longest}"
        yield Finding(("training", "tokens_per_microbatch"), text)
    yield from _divides_over_ranks(training.batch * training.accumulation, ("training", "batch"), job.resources)


def _divides_over_ranks(size: int, path: KeyPath, resources: ResourcesConfig) -> Iterator[Finding]:
    ranks = resources.devices * resources.nodes
    if size % ranks:
        yield Finding(path, f"{size} does not divide over {ranks} ranks (resources.devices × resources.nodes)")


def _warmup(warmup: int, updates: int, path: KeyPath) -> Iterator[Finding]:
    if warmup >= updates:
        yield Finding(path, f"the whole run of {updates} optimizer steps is warm-up", "warning")


def _baseline(job: EvaluateJob) -> Iterator[Finding]:
    baseline = job.comparison.baseline
    if baseline is not None and baseline not in job.models:
        yield Finding(("comparison", "baseline"), f"no model is named {baseline!r}{nearest(baseline, job.models)}")


def _unique(names: list[str], path: KeyPath, key: str) -> Iterator[Finding]:
    for i, name in enumerate(names):
        if name in names[:i]:
            yield Finding((*path, i, key), f"{name!r} is taken by an earlier one")
