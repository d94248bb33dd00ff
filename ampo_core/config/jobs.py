"""One config model for each job. `job` tells them apart."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from ampo_registry.specs import TaskSpec
from pydantic import Field, NonNegativeFloat, PositiveInt

from ampo_core.config.component import ComponentField
from ampo_core.config.tree import (
    Block,
    CheckpointConfig,
    DataConfig,
    DeepSpeedConfig,
    EvaluationConfig,
    GuidanceConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ResourcesConfig,
    Reward,
    RolloutField,
    RunConfig,
    TrackerField,
    TrainingConfig,
)

TaskField = Annotated[TaskSpec, ComponentField("task")]


class TrainJob(Block):
    """Reinforcement learning: GRPO, with guidance AMPO."""

    job: Literal["train"] = "train"
    run: RunConfig = RunConfig()
    model: ModelConfig
    data: DataConfig
    rollout: RolloutField = "vllm"  # type: ignore[assignment]
    reward: Reward = "math_verify"  # type: ignore[assignment]
    guidance: GuidanceConfig | None = Field(default={})  # type: ignore[assignment]
    objective: ObjectiveConfig = Field(default={})  # type: ignore[assignment]
    training: TrainingConfig = TrainingConfig()
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    evaluation: EvaluationConfig | None = None
    checkpoint: CheckpointConfig = CheckpointConfig()
    resources: ResourcesConfig = ResourcesConfig()
    tracking: list[TrackerField] = Field(default=["tensorboard"])  # type: ignore[list-item]


class SftDataConfig(Block):
    """Conversations to imitate."""

    train: list[str] = Field(min_length=1)
    format: Literal["pool", "messages"] = Field(
        default="pool",
        description="pool: every (question, teacher answer) pair of the data contract; messages: rows of conversations",
    )
    system_prompt: str = Field(default="keep", description="keep, or a text that replaces every row's system prompt")
    max_tokens: PositiveInt = Field(
        default=8192, description="prompt and answer together; longer examples are left out and counted"
    )


class SftTrainingConfig(OptimizerConfig):
    """Batches of an sft job: batch × accumulation examples an optimizer step, over all ranks."""

    epochs: PositiveInt = 3
    steps: PositiveInt | None = Field(
        default=None, description="stop after so many optimizer steps; null = epochs decide"
    )
    batch: PositiveInt = 1
    accumulation: PositiveInt = 8
    learning_rate: NonNegativeFloat = 5.0e-5
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup_ratio: float = Field(default=0.1, ge=0.0, le=1.0)


class SftJob(Block):
    """Supervised fine-tuning, full or LoRA; the loss is on the answer only."""

    job: Literal["sft"] = "sft"
    run: RunConfig = RunConfig()
    model: ModelConfig
    data: SftDataConfig
    training: SftTrainingConfig = SftTrainingConfig()
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    checkpoint: CheckpointConfig = CheckpointConfig(best=None)
    resources: ResourcesConfig = ResourcesConfig()
    tracking: list[TrackerField] = Field(default_factory=list)


class ComparisonConfig(Block):
    """What an evaluate job draws and says beside its table."""

    baseline: str | None = Field(default=None, description="model that the others are compared with; null = the first")
    curves: dict[str, str] = Field(
        default_factory=dict, description="name -> run folder whose metrics are drawn into curves.png"
    )
    note: str | None = Field(default=None, description="caveats printed under the table")


class EvaluateDataConfig(Block):
    """How prompts of evaluation sets are read."""

    max_prompt_tokens: PositiveInt = 1024
    overlong_prompts: Literal["drop", "cut"] = "drop"
    system_prompt: str = Field(default="keep", description="keep, or a text that replaces every row's system prompt")


class EvaluateJob(Block):
    """avg@k, pass@k and mean length of one or more models."""

    job: Literal["evaluate"] = "evaluate"
    run: RunConfig = RunConfig()
    models: dict[str, ModelConfig] = Field(min_length=1)
    data: EvaluateDataConfig = EvaluateDataConfig()
    rollout: RolloutField = "vllm"  # type: ignore[assignment]
    reward: Reward = "math_verify"  # type: ignore[assignment]
    evaluation: EvaluationConfig
    comparison: ComparisonConfig = ComparisonConfig()
    resources: ResourcesConfig = ResourcesConfig()
    tracking: list[TrackerField] = Field(default_factory=list)


class PrepareJob(Block):
    """A task plugin's small world, graded and written in the data contract."""

    job: Literal["prepare"] = "prepare"
    run: RunConfig = RunConfig()
    task: TaskField
    reward: Reward = "math_verify"  # type: ignore[assignment]
    out: str | None = Field(default=None, description="folder; null = the run's folder + /out")


class Stage(Block):
    """One stage of a pipeline."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    config: str = Field(description="path, relative to the pipeline's file")
    overrides: dict[str, Any] = Field(
        default_factory=dict,
        description="KEY: VALUE, keys with dots; ${stages.NAME.out} names an earlier stage's output",
    )


class PipelineJob(Block):
    """Stages one after the other; finished ones are not run again."""

    job: Literal["pipeline"] = "pipeline"
    run: RunConfig = RunConfig()
    stages: list[Stage] = Field(min_length=1)


class PoolTeacher(Block):
    """A model that writes teacher answers."""

    name: str
    model: ModelConfig
    system_prompt: str = "keep"
    temperature: NonNegativeFloat = 0.6
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    max_response_tokens: PositiveInt = 8192


class PoolJob(Block):
    """Builds a Multi-Guidance Pool."""

    job: Literal["pool"] = "pool"
    run: RunConfig = RunConfig()
    questions: list[str] = Field(min_length=1)
    teachers: list[PoolTeacher] = Field(min_length=1)
    answers_per_question: PositiveInt = 8
    keep: Literal["shortest"] = "shortest"
    unify: Literal["intersection"] | None = None
    rollout: RolloutField = "vllm"  # type: ignore[assignment]
    reward: Reward = "math_verify"  # type: ignore[assignment]
    resources: ResourcesConfig = ResourcesConfig()


class SuiteJob(Block):
    """Runs configs × seeds and compares them in one table."""

    job: Literal["suite"] = "suite"
    run: RunConfig = RunConfig()
    runs: dict[str, str] = Field(min_length=1, description="name -> config, relative to the suite's file")
    seeds: list[int] = Field(default=[0], min_length=1)


Job = TrainJob | SftJob | EvaluateJob | PrepareJob | PipelineJob | PoolJob | SuiteJob
JOBS: dict[str, type[Job]] = {
    "train": TrainJob,
    "sft": SftJob,
    "evaluate": EvaluateJob,
    "prepare": PrepareJob,
    "pool": PoolJob,
    "pipeline": PipelineJob,
    "suite": SuiteJob,
}
