"""The config of the `train` job."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

from ampo_registry.components import specs_in
from ampo_registry.judges import EVERY_JUDGE, POLICY, START
from ampo_registry.seams import NEEDS, LossSpec, ScheduleSpec
from ampo_registry.specs import RewardSpec
from ampo_registry.text import nearest
from pydantic import Field

from ampo_core.config import rules
from ampo_core.config.data_files import DataConfig, DataRead
from ampo_core.config.held_out import EvaluationConfig
from ampo_core.config.job import LearningJob, Longest, NamedModel
from ampo_core.config.layouts import layout_findings
from ampo_core.config.metric_names import ANSWERS, GUIDANCE, MACRO, TEACHER, TRAIN, evaluation_metrics
from ampo_core.config.nodes import Finding, KeyPath
from ampo_core.config.objective import NAME, ObjectiveConfig
from ampo_core.config.tree import (
    CheckpointConfig,
    DeepSpeedConfig,
    GuidanceConfig,
    JudgeField,
    Observers,
    ResourcesConfig,
    Reward,
    RolloutField,
    TrackerField,
    TrainingConfig,
)
from ampo_core.config.weights import unadapted

ROUNDING = 1e-9


def _range(value: float | ScheduleSpec) -> tuple[float, float]:
    """The least and the largest number that an option comes to; for a schedule that does not say, nothing to refuse."""
    if isinstance(value, ScheduleSpec):
        return value.range() or (math.nan, math.nan)
    return float(value), float(value)


def threshold_limits(reward: RewardSpec) -> tuple[float, float] | None:
    """What τ must be more than, and at most: the most that a wrong response earns, and the least that a right one does.
    None where the reward does not say."""
    wrong, right = reward.earns(False), reward.earns(True)
    return None if wrong is None or right is None else (wrong[1], right[0])


def limits_text(limits: tuple[float, float]) -> str:
    """The limits of τ for a person."""
    wrong, right = limits
    text = f"a wrong response can earn {wrong:g} and a right one no more than {right:g}"
    if wrong >= right:
        return f"{text}: no τ tells them apart; change the weights of the reward"
    return f"{text}, so τ must be more than {wrong:g}, at most {right:g}"


class TrainJob(LearningJob):
    """Reinforcement learning: GRPO, with guidance AMPO."""

    job: Literal["train"] = "train"
    data: DataConfig
    rollout: RolloutField = Field(default="vllm", description="what samples responses")  # type: ignore[assignment]
    reward: Reward = Field(default="math_verify", description="what verifies them")  # type: ignore[assignment]
    judges: dict[str, JudgeField] = Field(
        default={}, description="frozen models that losses and advantages may ask for log-probs, by name"
    )
    guidance: GuidanceConfig | None = Field(default={}, description="null = GRPO")  # type: ignore[assignment]
    objective: ObjectiveConfig = Field(default={})  # type: ignore[assignment]
    training: TrainingConfig = TrainingConfig()
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    evaluation: EvaluationConfig | None = Field(default=None, description="null = none")
    checkpoint: CheckpointConfig = CheckpointConfig()
    resources: ResourcesConfig = ResourcesConfig()
    tracking: list[TrackerField] = Field(default=["tensorboard"], description="where metrics go besides the run folder")  # type: ignore[list-item]
    observers: Observers = Field(default={})

    def findings(self) -> Iterator[Finding]:
        yield from self._guidance()
        yield from self._objective()
        yield from self._judges()
        yield from self._sizes()
        yield from self._data()
        yield from self._best()
        yield from self._adapters()
        yield from rules.sharded(self.deepspeed, self.model.dtype)
        yield from self._ahead()
        yield from rules.unfit(self.rollout, self.resources)
        yield from rules.lone_hostfile(self.resources)
        if self.evaluation is not None:
            yield from self.evaluation.unread()

    def machines(self) -> ResourcesConfig:
        return self.resources

    def unshown(self) -> str | None:
        return None

    def longest(self) -> Iterator[Longest]:
        model, data, prompt = self.model.path, self.data, self.data.max_prompt_tokens
        yield Longest.of(model, data, prompt, self.rollout.max_response_tokens, ("rollout", "max_response_tokens"))
        if self.evaluation is not None:
            yield Longest.of(model, data, prompt, *self.evaluation.longest_response(self.rollout))

    def used_data(self) -> Iterator[DataRead]:
        for i, file in enumerate(self.data.train):
            yield DataRead(("data", "train", i), file, self.data, reward=self.reward)
        if self.evaluation is not None:
            yield from self.evaluation.used_data(self.data, self.reward)

    def _guidance(self) -> Iterator[Finding]:
        guidance, group_size = self.guidance, self.rollout.group_size
        if guidance is None:
            return
        lowest, highest = _range(guidance.threshold)
        if (limits := threshold_limits(self.reward)) and (lowest <= limits[0] or highest > limits[1] + ROUNDING):
            found = f"{lowest:g}" if lowest == highest else f"{lowest:g} to {highest:g}"
            weight = f"λ = reward.format_weight = {self.reward.format_weight:g}"
            yield Finding(("guidance", "threshold"), f"found τ = {found} with {weight}; {limits_text(limits)}")
        if (most := _range(guidance.replacements)[1]) > group_size:
            group = f"the {group_size} rollouts of a group (rollout.group_size)"
            yield Finding(("guidance", "replacements"), f"found {most:g}, more than {group}")
        off_policy = self.objective.off_policy
        unit_over_batch = self.objective.scope == "batch" and off_policy.weight == "unit"
        if unit_over_batch and off_policy.aggregator.depends_on_count():
            text = (
                "unit with scope batch lets a single teacher answer among all questions of a mini-batch become the "
                "whole off-policy term; consider weight: proportional or scope: group"
            )
            yield Finding(("objective", "off_policy", "weight"), text, "warning")
        for path in self.objective.reading_teachers():
            text = "it needs the teachers' per-token log-probs in the data; an answer without them stops the run"
            yield Finding(path, text, "warning")

    def _objective(self) -> Iterator[Finding]:
        yield from self.objective.findings(None if self.guidance is None else self.guidance.intervention, self.judges)
        if self.rollout.group_size == 1 and self.guidance is None:
            text = "a group of one rollout has nothing to be compared with: its advantage is always the same"
            yield Finding(("rollout", "group_size"), text, "warning")
        penalty = self.reward.overlong_penalty
        if penalty is not None and penalty.buffer > self.rollout.max_response_tokens:
            text = f"found {penalty.buffer}, more than rollout.max_response_tokens = {self.rollout.max_response_tokens}"
            yield Finding(("reward", "overlong_penalty", "buffer"), text)

    def used_models(self) -> Iterator[NamedModel]:
        yield from super().used_models()
        yield from (NamedModel(self.judge_key(name), path) for name, path in self.judge_models().items())

    def judge_key(self, name: str) -> KeyPath:
        """The option of the judge `name` that says which model it loads; the judge itself where none says it so."""
        spec = self.judges[name]
        options = ("path", *(option for option in type(spec).model_fields if option not in ("path", "type")))
        named = [(option,) for option in options if getattr(spec, option, None) == spec.model is not None]
        return ("judges", name, *(named[0] if named else ()))

    def judge_models(self) -> dict[str, str]:
        """The models that judges which something asks load, by the judges' names."""
        models = {name: self.judges[name].model for name in sorted(self.needed_judges() & self.judges.keys())}
        return {name: path for name, path in models.items() if path is not None}

    def needed_judges(self) -> frozenset[str]:
        """The judges that something asks."""
        asked = frozenset(name for spec in specs_in(self) for name in spec.judges) | self.objective.judges
        return asked - {EVERY_JUDGE} | (self.judges.keys() if EVERY_JUDGE in asked else set())

    def _judges(self) -> Iterator[Finding]:
        for name in self.judges:
            if name in (*NEEDS, START, POLICY) or not NAME.fullmatch(name):
                own = ", ".join((*NEEDS, START, POLICY))
                text = f"found {name!r}; expected lower case letters, digits and _, and none of {own}"
                yield Finding(("judges", name), text)
        needed = self.needed_judges()
        for name, spec in self.judges.items():
            if name not in needed:
                yield Finding(("judges", name), "nothing asks this judge, so it is not loaded", "warning")
            elif (reason := spec.refuses(self.rollout.temperature)) is not None:
                yield Finding(("judges", name), f"with rollout.temperature {self.rollout.temperature:g}: {reason}")
        known = (START, POLICY, *self.judges)
        for path, component in self.used_components():
            for name in sorted(component.judges - {EVERY_JUDGE, *known}):
                near = nearest(name, known)
                hint = f"; did you mean {near!r}?" if near else ""
                text = f"it asks the judge {name!r}, which `judges` does not declare{hint}"
                yield Finding(path, f"{text}\ndeclared: {', '.join(known)}")

    def _sizes(self) -> Iterator[Finding]:
        training = self.training
        batch, minibatch = training.questions_per_batch, training.questions_per_minibatch
        if batch % minibatch:
            text = f"{minibatch} does not divide questions_per_batch = {batch}"
            yield Finding(("training", "questions_per_minibatch"), text)
        longest = self.data.max_prompt_tokens + self.rollout.max_response_tokens
        if training.tokens_per_microbatch < longest:
            text = (
                f"found {training.tokens_per_microbatch}; one sequence may have {longest} tokens "
                f"(data.max_prompt_tokens {self.data.max_prompt_tokens} + "
                f"rollout.max_response_tokens {self.rollout.max_response_tokens})"
            )
            yield Finding(("training", "tokens_per_microbatch"), text)
        updates = training.steps * training.epochs_per_batch * max(1, batch // minibatch)
        if training.warmup_steps >= updates:
            text = f"the whole run of {updates} optimizer steps is warm-up"
            yield Finding(("training", "warmup_steps"), text, "warning")

    def _data(self) -> Iterator[Finding]:
        weights, files = self.data.weights, self.data.train
        if weights is not None and len(weights) != len(files):
            yield Finding(("data", "weights"), f"found {len(weights)} weight(s) for {len(files)} file(s) of data.train")
        yield from layout_findings(self.data, ("data",))
        if self.evaluation is not None:
            yield from self.evaluation.findings()

    def _best(self) -> Iterator[Finding]:
        best, path = self.checkpoint.best, ("checkpoint", "best")
        if best is not None and best.startswith("eval/") and self.evaluation is None:
            if best != MACRO:
                yield Finding(path, f"there is no metric {best} without an evaluation block")
            return
        of_a_teacher = tuple(name.removesuffix("NAME") for name in (ANSWERS, TEACHER))
        if best is not None and self.guidance is not None and best.startswith(of_a_teacher):
            return
        own = [*TRAIN, *(GUIDANCE if self.guidance is not None else ()), *self.objective.logs()]
        own += [name for spec in specs_in(self) if not isinstance(spec, LossSpec) for name in spec.logs]
        yield from rules.known_best(self.checkpoint, [*evaluation_metrics(self.evaluation, self.reward), *own])

    def _adapters(self) -> Iterator[Finding]:
        if self.model.lora is not None and self.model.lora.dropout > 0:
            text = f"found {self.model.lora.dropout:g}, must be 0 in a train job, for π_old is computed without dropout"
            yield Finding(("model", "lora", "dropout"), text)
        yield from unadapted(self.model)

    def _ahead(self) -> Iterator[Finding]:
        if self.rollout.ahead and self.objective.on_policy.importance_cap is not None:
            text = "does nothing with rollout.ahead 1 after the first batch: what was sampled ahead has weight 1"
            yield Finding(("objective", "on_policy", "importance_cap"), text, "warning")
        group_filter = self.objective.group_filter
        if self.rollout.ahead and group_filter is not None and group_filter.resample:
            text = (
                "found 1 with objective.group_filter.resample: how many questions a step takes is known only after it, "
                "so the next ones cannot be sampled beside it"
            )
            yield Finding(("rollout", "ahead"), text)
