"""The blocks that several jobs share. Defaults are the `paper` preset's; an unknown key is an error everywhere.

The jobs themselves stand in files of their own: `train_job.py`, `sft_job.py` and so on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from ampo_registry.components import ComponentField, ScheduledField
from ampo_registry.seams import InterventionSpec, JudgeSpec, ScheduleSpec
from ampo_registry.selectors import SelectorSpec
from ampo_registry.specs import (
    RewardSpec,
    RolloutSpec,
    TeacherPoolSpec,
    TrackerSpec,
    TriggerSpec,
)
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from ampo_core.config.values import Name, PathText, Seed

Selector = Annotated[SelectorSpec, ComponentField("selector")]
Trigger = Annotated[TriggerSpec, ComponentField("trigger")]
TeacherPool = Annotated[TeacherPoolSpec, ComponentField("teacher_pool")]
Reward = Annotated[RewardSpec, ComponentField("reward")]
RolloutField = Annotated[RolloutSpec, ComponentField("rollout")]
Intervention = Annotated[InterventionSpec, ComponentField("intervention")]
JudgeField = Annotated[JudgeSpec, ComponentField("judge")]
TrackerField = Annotated[TrackerSpec, ComponentField("tracker")]

Observers = Annotated[
    dict[str, bool],
    Field(description="false turns the installed observer of that name off; all others are called"),
]

Beta = Annotated[float, Field(ge=0.0, lt=1.0)]
Scheduled = Annotated[float | ScheduleSpec, ScheduledField()]


class Block(BaseModel):
    """Base of all config blocks: frozen, closed, defaults validated."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class RunConfig(Block):
    """Where the run's files go and what seeds it."""

    name: Name = Field(default="run", description="folder of the run inside `dir`")
    dir: PathText = Field(default="runs", description="folder of all runs, relative to the working directory")
    seed: Seed = Field(
        default=0,
        description="seed of everything random; a pipeline's is that of its stages, unless their overrides say another",
    )

    @property
    def folder(self) -> Path:
        """The run's own folder."""
        return Path(self.dir) / self.name


class LoraConfig(Block):
    """Low-rank adapters (peft), merged on export."""

    rank: PositiveInt = Field(default=16, description="rank of the adapters")
    alpha: PositiveInt = Field(default=32, description="the adapters are scaled by alpha / rank")
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="dropout in front of the adapters")
    target_modules: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = Field(
        default="all-linear", description="all-linear, or names of modules"
    )


class SampledModel(Block):
    """A model in Hugging Face format that only samples."""

    path: PathText = Field(description="Hugging Face folder or Hub name")
    dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None, description="type of the weights; null = as the rollout chooses"
    )
    chat_template: PathText | None = Field(default=None, description="path of a Jinja file; null = the tokenizer's own")
    chat_template_options: dict[str, Any] = Field(
        default={}, description="passed to the template, e.g. {enable_thinking: false}"
    )
    stop: str | list[str] = Field(
        default=[],
        description="tokens that end a response besides the model's EOS, and with the first of them teacher and SFT "
        "answers end; none = the token that the chat template closes an assistant's turn with",
    )


class ModelConfig(SampledModel):
    """A model in Hugging Face format that is trained."""

    dtype: Literal["float32", "bfloat16"] = Field(
        default="bfloat16", description="type of the weights that are trained"
    )
    gradient_checkpointing: bool = Field(
        default=True, description="recompute activations in the backward pass: less memory, more time"
    )
    lora: LoraConfig | None = Field(default=None, description="train low-rank adapters; null = all weights")


class GuidanceConfig(Block):
    """When and how teacher answers replace wrong rollouts (Eq. 3-5)."""

    threshold: Scheduled = Field(
        default=0.6,
        description="τ: a rollout with a reward below it is wrong; above what a wrong one can earn (λ), at most what a "
        "right one does (1-λ)",
    )
    trigger: Trigger = Field(default="adaptive", description="which groups get teacher answers")  # type: ignore[assignment]
    teacher_pool: TeacherPool = Field(default="dataset", description="where teacher answers come from")  # type: ignore[assignment]
    selector: Selector = Field(default="comprehension", description="which teacher answers are taken")  # type: ignore[assignment]
    intervention: Intervention = Field(default="replace", description="what a group that needs them is made of")  # type: ignore[assignment]
    replacements: Annotated[int | ScheduleSpec, ScheduledField(least=1, whole=True)] = Field(
        default=2, description="k0: wanted teacher answers in a group; a schedule is rounded"
    )
    teacher_reward: Literal["verified"] | float = Field(
        default="verified", description="verified: the reward of the teacher's own answer; or a number for all"
    )


class OptimizerConfig(Block):
    """AdamW and its schedule; shared by train and sft."""

    tokens_per_microbatch: PositiveInt = Field(
        default=18432, description="hard cap on the sum of the lengths of the sequences of a forward pass"
    )
    learning_rate: NonNegativeFloat = Field(default=1.0e-6, description="peak learning rate")
    schedule: Literal["constant", "linear", "cosine"] = Field(default="constant", description="after the warm-up")
    betas: tuple[Beta, Beta] = Field(default=(0.9, 0.999), description="of AdamW")
    weight_decay: NonNegativeFloat = Field(default=0.1, description="of AdamW, decoupled")
    grad_clip: PositiveFloat = Field(default=1.0, description="largest norm of the gradient")
    max_skipped_steps: PositiveInt = Field(default=3, description="stop after this many non-finite updates in a row")


class TrainingConfig(OptimizerConfig):
    """Batches and steps of a train job; sizes count questions over all ranks."""

    steps: PositiveInt = Field(default=500, description="batches of questions")
    questions_per_batch: PositiveInt = Field(default=128, description="questions that are sampled at once")
    questions_per_minibatch: PositiveInt = Field(
        default=64, description="questions of one optimizer step; divides questions_per_batch"
    )
    epochs_per_batch: PositiveInt = Field(default=1, description="how often a batch is trained on")
    warmup_steps: NonNegativeInt = Field(default=0, description="optimizer steps of linear warm-up")

    @property
    def updates(self) -> int:
        """Optimizer steps of a full batch."""
        return self.questions_per_batch // self.questions_per_minibatch * self.epochs_per_batch


class DeepSpeedConfig(Block):
    """How DeepSpeed holds the model."""

    zero_stage: Literal[0, 1, 2, 3] = Field(
        default=3, description="0 = nothing is sharded, 1 = optimizer states, 2 = and gradients, 3 = and weights"
    )
    offload_optimizer: Literal["none", "cpu"] = Field(
        default="none", description="keep optimizer states in main memory"
    )
    offload_parameters: Literal["none", "cpu"] = Field(default="none", description="keep weights in main memory")


class CheckpointConfig(Block):
    """What is kept."""

    every: PositiveInt | None = Field(default=50, description="steps; null = only the last")
    keep: PositiveInt = Field(default=2, description="how many of the newest are kept")
    best: str | None = Field(
        default="eval/macro/avg",
        description="metric, higher is better, whose best checkpoint is never pruned; null = none. Without an "
        "evaluation the default never applies",
    )


class ResourcesConfig(Block):
    """Devices and threads. The default is one process, not the machines of the paper's runs."""

    devices: PositiveInt = Field(default=1, description="ranks of a node: GPUs, or CPU processes")
    nodes: PositiveInt = Field(default=1, description="machines")
    hostfile: PathText | None = Field(default=None, description="DeepSpeed host file for several nodes")
    threads: PositiveInt | None = Field(
        default=None,
        description="CPU threads of a rank; null = PyTorch's choice for a single rank (all cores, or OMP_NUM_THREADS), "
        "else the machine's cores over the ranks on it",
    )
