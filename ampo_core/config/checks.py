"""What one field alone cannot tell: rules between keys. Errors refuse a config, warnings are only said."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ampo_core.config.held_out import HeldOutConfig
from ampo_core.config.jobs import EvaluateJob, Job, PipelineJob, PoolJob, SftJob, SuiteJob, TrainJob
from ampo_core.config.metric_names import ANSWERS, GUIDANCE, MACRO, SFT, TEACHER, TRAIN, by_teacher, evaluation_metrics
from ampo_core.config.nodes import Finding, KeyPath, nearest
from ampo_core.config.pool_checks import pool_findings
from ampo_core.config.suite_checks import check_suite
from ampo_core.config.tree import CheckpointConfig, DeepSpeedConfig
from ampo_core.config.unread import unread

_ROUNDING = 1e-9
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_job(job: Job) -> list[Finding]:
    """All findings of a config that is valid field by field."""
    return [*_rules(job), *unread(job)]


def _rules(job: Job) -> list[Finding]:
    if isinstance(job, TrainJob):
        found = [*_guidance(job), *_objective(job), *_sizes(job), *_training_data(job), *_checkpoint(job)]
        return [*found, *_deepspeed(job.deepspeed, job.model.dtype), *_ahead(job), *_unfit(job)]
    if isinstance(job, SftJob):
        return [*_sft(job), *_best(job.checkpoint, SFT), *_deepspeed(job.deepspeed, job.model.dtype)]
    if isinstance(job, EvaluateJob):
        return [*_evaluation(job.evaluation), *_models(job), *([] if job.predictions else _unfit(job))]
    if isinstance(job, PoolJob):
        return list(pool_findings(job))
    if isinstance(job, PipelineJob):
        return list(_unique([stage.name for stage in job.stages], ("stages",), "name"))
    if isinstance(job, SuiteJob):
        unique = _unique([stage.name for stage in job.stages], ("stages",), "name")
        return [*unique, *check_suite(job)]
    return []


def _deepspeed(config: DeepSpeedConfig, dtype: str) -> Iterator[Finding]:
    if dtype == "bfloat16" and config.zero_stage == 0:
        text = "found 0 with model.dtype bfloat16; DeepSpeed keeps float32 masters from ZeRO 1 on: use 1, 2 or 3"
        yield Finding(("deepspeed", "zero_stage"), text)
    if config.offload_optimizer != "none" and config.zero_stage == 0:
        text = "found cpu with zero_stage 0; only states that ZeRO 1 to 3 shard can be offloaded"
        yield Finding(("deepspeed", "offload_optimizer"), text)
    if config.offload_parameters != "none" and config.zero_stage < 3:
        text = f"found cpu with zero_stage {config.zero_stage}; only ZeRO 3 can offload weights"
        yield Finding(("deepspeed", "offload_parameters"), text)


def _unfit(job: TrainJob | EvaluateJob) -> Iterator[Finding]:
    reason = job.rollout.unfit(job.resources.devices * job.resources.nodes)
    if reason is not None:
        yield Finding(("rollout",), reason)


def _ahead(job: TrainJob) -> Iterator[Finding]:
    if job.rollout.ahead and job.objective.on_policy.importance_cap is not None:
        text = "does nothing with rollout.ahead 1 after the first batch: what was sampled ahead has weight 1"
        yield Finding(("objective", "on_policy", "importance_cap"), text, "warning")
    group_filter = job.objective.group_filter
    if job.rollout.ahead and group_filter is not None and group_filter.resample:
        text = (
            "found 1 with objective.group_filter.resample: how many questions a step takes is known only after it, so "
            "the next ones cannot be sampled beside it"
        )
        yield Finding(("rollout", "ahead"), text)


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
    unit_over_batch = job.objective.scope == "batch" and off_policy.weight == "unit"
    if unit_over_batch and off_policy.aggregator.depends_on_count():
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


def _evaluation(evaluation: HeldOutConfig) -> Iterator[Finding]:
    yield from _names(evaluation.sets, ("evaluation", "sets"))
    if "macro" in evaluation.sets:
        yield Finding(("evaluation", "sets", "macro"), "macro is the name of the mean over all sets; choose another")
    for name, item in evaluation.sets.items():
        for k in item.tries():
            if k > item.samples:
                text = f"pass@{k} needs at least {k} samples, found samples = {item.samples}"
                yield Finding(("evaluation", "sets", name, "pass_at"), text)
        if item.samples > 1 and evaluation.temperature == 0.0:
            text = f"found {item.samples}; at temperature 0 all samples of a question are the same"
            yield Finding(("evaluation", "sets", name, "samples"), text, "warning")
    yield from _groups(evaluation)


def _groups(evaluation: HeldOutConfig) -> Iterator[Finding]:
    yield from _names(evaluation.groups, ("evaluation", "groups"))
    for name, members in evaluation.groups.items():
        path = ("evaluation", "groups", name)
        if name == "macro" or name in evaluation.sets:
            taken = "the name of the mean over all sets" if name == "macro" else "the name of a set"
            yield Finding(path, f"{name} is {taken}; choose another")
        if not members:
            yield Finding(path, "names no set")
        for i, member in enumerate(members):
            if member not in evaluation.sets:
                yield Finding((*path, i), f"no set is named {member!r}{nearest(member, evaluation.sets)}")
            elif member in members[:i]:
                yield Finding((*path, i), f"{member} stands twice")


def _names(names: Iterable[str], path: KeyPath) -> Iterator[Finding]:
    """Names become parts of metric names and files."""
    for name in names:
        if not _NAME.fullmatch(name):
            text = f"found the name {name!r}; expected letters, digits, '.', '_' and '-', a letter or digit first"
            yield Finding((*path, name), text)


def _checkpoint(job: TrainJob) -> Iterator[Finding]:
    best, path = job.checkpoint.best, ("checkpoint", "best")
    if best is not None and best.startswith("eval/") and job.evaluation is None:
        if best != MACRO:
            yield Finding(path, f"there is no metric {best} without an evaluation block")
        elif "best" in job.checkpoint.model_fields_set:
            yield Finding(path, f"{best} never comes without an evaluation block, so no checkpoint is best", "warning")
        return
    if (
        best is not None
        and job.guidance is not None
        and any(by_teacher({best: 0}, name) for name in (ANSWERS, TEACHER))
    ):
        return
    own = (*TRAIN, *GUIDANCE) if job.guidance is not None else TRAIN
    yield from _best(job.checkpoint, [*evaluation_metrics(job.evaluation), *own])


def _best(checkpoint: CheckpointConfig, metrics: Iterable[str]) -> Iterator[Finding]:
    known = list(metrics)
    if checkpoint.best is not None and checkpoint.best not in known:
        text = f"this job has no metric {checkpoint.best}{nearest(checkpoint.best, known)}"
        yield Finding(("checkpoint", "best"), text)


def _sft(job: SftJob) -> Iterator[Finding]:
    training = job.training
    if training.tokens_per_microbatch < job.data.max_tokens:
        longest = f"one example may have data.max_tokens = {job.data.max_tokens}"
        text = f"found {training.tokens_per_microbatch}; {longest}"
        yield Finding(("training", "tokens_per_microbatch"), text)


def _warmup(warmup: int, updates: int, path: KeyPath) -> Iterator[Finding]:
    if warmup >= updates:
        yield Finding(path, f"the whole run of {updates} optimizer steps is warm-up", "warning")


def _models(job: EvaluateJob) -> Iterator[Finding]:
    yield from _names(job.models, ("models",))
    if not job.models and not job.predictions:
        yield Finding(("models",), "names no model, and there are no predictions to grade anew; expected one of them")
    baseline = job.comparison.baseline
    if baseline is not None and baseline not in job.models and job.models:
        yield Finding(("comparison", "baseline"), f"no model is named {baseline!r}{nearest(baseline, job.models)}")


def _unique(names: list[str], path: KeyPath, key: str) -> Iterator[Finding]:
    for i, name in enumerate(names):
        if name in names[:i]:
            yield Finding((*path, i, key), f"{name!r} is taken by an earlier one")
