"""One config model for each job. `job` tells them apart."""

from __future__ import annotations

from typing import Annotated, Literal

from ampo_registry.specs import TaskSpec
from pydantic import Field, NonNegativeFloat, PositiveInt

from ampo_core.config.component import ComponentField
from ampo_core.config.held_out import EvaluationConfig, HeldOutConfig
from ampo_core.config.pool_job import PoolJob
from ampo_core.config.suite_job import Stage, SuiteJob
from ampo_core.config.tree import (
    Block,
    CheckpointConfig,
    DataConfig,
    DeepSpeedConfig,
    GuidanceConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ResourcesConfig,
    Reward,
    RolloutField,
    RunConfig,
    SampledModel,
    TrackerField,
    TrainingConfig,
)

__all__ = [
    "JOBS",
    "ComparisonConfig",
    "EvaluateDataConfig",
    "EvaluateJob",
    "Job",
    "PipelineJob",
    "PoolJob",
    "PrepareJob",
    "SftCheckpointConfig",
    "SftDataConfig",
    "SftJob",
    "SftTrainingConfig",
    "Stage",
    "SuiteJob",
    "TrainJob",
    "resources_of",
]

TaskField = Annotated[TaskSpec, ComponentField("task")]


class TrainJob(Block):
    """Reinforcement learning: GRPO, with guidance AMPO."""

    job: Literal["train"] = "train"
    run: RunConfig = RunConfig()
    model: ModelConfig
    data: DataConfig
    rollout: RolloutField = Field(default="vllm", description="what samples responses")  # type: ignore[assignment]
    reward: Reward = Field(default="math_verify", description="what verifies them")  # type: ignore[assignment]
    guidance: GuidanceConfig | None = Field(default={}, description="null = GRPO")  # type: ignore[assignment]
    objective: ObjectiveConfig = Field(default={})  # type: ignore[assignment]
    training: TrainingConfig = TrainingConfig()
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    evaluation: EvaluationConfig | None = Field(default=None, description="null = none")
    checkpoint: CheckpointConfig = CheckpointConfig()
    resources: ResourcesConfig = ResourcesConfig()
    tracking: list[TrackerField] = Field(default=["tensorboard"], description="where metrics go besides the run folder")  # type: ignore[list-item]


class SftDataConfig(Block):
    """Conversations to imitate."""

    train: list[str] = Field(min_length=1, description="files of examples")
    format: Literal["pool", "messages"] = Field(
        default="pool",
        description="pool: every (question, teacher answer) pair of the data contract; messages: rows of conversations",
    )
    system_prompt: str = Field(default="keep", description="keep, or a text that replaces every row's system prompt")
    max_tokens: PositiveInt = Field(
        default=8192, description="prompt and answer together; longer examples are left out and counted"
    )


class SftTrainingConfig(OptimizerConfig):
    """Batches of an sft job. How an optimizer step is cut into forward passes follows from `tokens_per_microbatch`."""

    epochs: PositiveInt = Field(default=3, description="passes over the data")
    steps: PositiveInt | None = Field(
        default=None, description="stop after so many optimizer steps; null = epochs decide"
    )
    batch: PositiveInt = Field(
        default=1, description="batch × accumulation = examples of an optimizer step, over all ranks"
    )
    accumulation: PositiveInt = Field(default=8, description="see batch; only the product counts")
    learning_rate: NonNegativeFloat = Field(default=5.0e-5, description="peak learning rate")
    schedule: Literal["constant", "linear", "cosine"] = Field(default="cosine", description="after the warm-up")
    warmup_ratio: float = Field(
        default=0.1, ge=0.0, le=1.0, description="share of the optimizer steps with linear warm-up"
    )


class SftCheckpointConfig(CheckpointConfig):
    """What is kept; nothing is evaluated, so no checkpoint is the best unless a metric of training says so."""

    best: str | None = Field(
        default=None, description="metric, higher is better, whose best checkpoint is never pruned; null = none"
    )


class SftJob(Block):
    """Supervised fine-tuning, full or LoRA; the loss is on the answer only."""

    job: Literal["sft"] = "sft"
    run: RunConfig = RunConfig()
    model: ModelConfig
    data: SftDataConfig
    training: SftTrainingConfig = SftTrainingConfig()
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    checkpoint: SftCheckpointConfig = SftCheckpointConfig()
    resources: ResourcesConfig = ResourcesConfig()
    tracking: list[TrackerField] = Field(default=[], description="where metrics go besides the run folder")


class ComparisonConfig(Block):
    """What an evaluate job draws and says beside its table."""

    baseline: str | None = Field(default=None, description="model that the others are compared with; null = the first")
    curves: dict[str, str] = Field(default={}, description="name -> run folder whose metrics are drawn into curves.png")
    note: str | None = Field(default=None, description="caveats printed under the table")


class EvaluateDataConfig(Block):
    """How prompts of evaluation sets are read."""

    max_prompt_tokens: PositiveInt = Field(default=1024, description="longest prompt")
    overlong_prompts: Literal["drop", "cut"] = Field(
        default="drop", description="cut keeps the last max_prompt_tokens tokens"
    )
    system_prompt: str = Field(default="keep", description="keep, or a text that replaces every row's system prompt")


class EvaluatedModel(SampledModel):
    """A model in Hugging Face format, or the run that trained it."""

    path: str = Field(
        description="Hugging Face folder or Hub name; a run folder: its final policy, with @best, @latest or @50 "
        "behind it that of another checkpoint; or a folder of a checkpoint"
    )


class EvaluateJob(Block):
    """avg@k, pass@k and mean length of one or more models."""

    job: Literal["evaluate"] = "evaluate"
    run: RunConfig = RunConfig()
    models: dict[str, EvaluatedModel] = Field(
        default={}, description="name -> model; may be left out with `predictions`, and then selects some of theirs"
    )
    predictions: list[str] = Field(
        default=[],
        description="folders of earlier evaluate jobs, or their predictions.jsonl: these responses are graded anew, "
        "and no model is loaded",
    )
    data: EvaluateDataConfig = EvaluateDataConfig()
    rollout: RolloutField = Field(default="vllm", description="what samples responses")  # type: ignore[assignment]
    reward: Reward = Field(default="math_verify", description="what verifies them")  # type: ignore[assignment]
    evaluation: HeldOutConfig
    comparison: ComparisonConfig = ComparisonConfig()
    resources: ResourcesConfig = ResourcesConfig()
    tracking: list[TrackerField] = Field(default=[], description="where metrics go besides the run folder")


class PrepareJob(Block):
    """A task plugin's small world, graded and written in the data contract."""

    job: Literal["prepare"] = "prepare"
    run: RunConfig = RunConfig()
    task: TaskField = Field(description="what makes the questions")
    reward: Reward = Field(default="math_verify", description="what verifies the teachers' answers")  # type: ignore[assignment]
    out: str | None = Field(default=None, description="folder; null = the run's folder + /out")


class PipelineJob(Block):
    """Stages one after the other; finished ones are not run again."""

    job: Literal["pipeline"] = "pipeline"
    run: RunConfig = RunConfig()
    stages: list[Stage] = Field(min_length=1, description="in the order in which they run")


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


def resources_of(job: Job) -> ResourcesConfig | None:
    """The machines of a job that runs as ranks; None for one that runs as a single process."""
    if isinstance(job, EvaluateJob) and job.predictions:
        return None
    resources: ResourcesConfig | None = getattr(job, "resources", None)
    return resources
