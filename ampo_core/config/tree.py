"""The blocks that several jobs share. Defaults are the `paper` preset's; an unknown key is an error everywhere.

The jobs themselves stand in `jobs.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from ampo_registry.selectors import SelectorSpec
from ampo_registry.specs import (
    AdvantageSpec,
    AggregatorSpec,
    RewardSpec,
    RolloutSpec,
    ShapingSpec,
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
    field_validator,
)

from ampo_core.config.component import ComponentField

Selector = Annotated[SelectorSpec, ComponentField("selector")]
Trigger = Annotated[TriggerSpec, ComponentField("trigger")]
TeacherPool = Annotated[TeacherPoolSpec, ComponentField("teacher_pool")]
Reward = Annotated[RewardSpec, ComponentField("reward")]
RolloutField = Annotated[RolloutSpec, ComponentField("rollout")]
Advantage = Annotated[AdvantageSpec, ComponentField("advantage")]
Aggregator = Annotated[AggregatorSpec, ComponentField("aggregator")]
Shaping = Annotated[ShapingSpec, ComponentField("shaping")]
TrackerField = Annotated[TrackerSpec, ComponentField("tracker")]

Beta = Annotated[float, Field(ge=0.0, lt=1.0)]
Clip = tuple[NonNegativeFloat, NonNegativeFloat]
TermWeight = Literal["unit", "proportional", "token_share"] | NonNegativeFloat


class Block(BaseModel):
    """Base of all config blocks: frozen, closed, defaults validated."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class RunConfig(Block):
    """Where the run's files go and what seeds it."""

    name: str = Field(
        default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="folder of the run inside `dir`"
    )
    dir: str = Field(default="runs", description="folder of all runs, relative to the working directory")
    seed: NonNegativeInt = Field(default=0, description="seed of everything random")


class LoraConfig(Block):
    """Low-rank adapters (peft), merged on export."""

    rank: PositiveInt = 16
    alpha: PositiveInt = 32
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    target_modules: Literal["all-linear"] | list[str] = "all-linear"


class ModelConfig(Block):
    """The student."""

    path: str = Field(description="Hugging Face folder or Hub name")
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    gradient_checkpointing: bool = True
    lora: LoraConfig | None = None
    chat_template: str | None = Field(default=None, description="path of a Jinja file; null = the tokenizer's own")
    chat_template_options: dict[str, Any] = Field(
        default_factory=dict, description="passed to the template, e.g. {enable_thinking: false}"
    )
    stop: list[str] = Field(
        default_factory=list, description="further tokens that end a response, besides the model's EOS"
    )


class DataConfig(Block):
    """Training questions in the data contract (Parquet or JSONL)."""

    train: list[str] = Field(min_length=1)
    max_prompt_tokens: PositiveInt = 1024
    overlong_prompts: Literal["drop", "cut"] = Field(
        default="drop", description="cut keeps the last max_prompt_tokens tokens"
    )
    system_prompt: str = Field(default="keep", description="keep, or a text that replaces every row's system prompt")
    shuffle: bool = True
    weights: list[PositiveFloat] | None = Field(
        default=None, description="share of each file of `train` in the stream of questions; null = by rows"
    )


class GuidanceConfig(Block):
    """When and how teacher answers replace wrong rollouts (Eq. 3-5)."""

    threshold: float = Field(default=0.6, description="τ: a rollout with a reward below it is wrong; λ < τ <= 1-λ")
    trigger: Trigger = "adaptive"  # type: ignore[assignment]
    teacher_pool: TeacherPool = "dataset"  # type: ignore[assignment]
    selector: Selector = "comprehension"  # type: ignore[assignment]
    replacements: PositiveInt = Field(default=2, description="k0: wanted replacements in a group")
    teacher_reward: Literal["verified"] | float = "verified"


class OnPolicyConfig(Block):
    """The term of the student's own tokens."""

    aggregator: Aggregator = "token"  # type: ignore[assignment]
    clip: Clip | None = (0.2, 0.2)
    dual_clip: Annotated[float, Field(gt=1.0)] | None = None
    log_ratio_clamp: PositiveFloat | None = None
    weight: TermWeight = "unit"
    mask_truncated: bool = Field(default=False, description="leave responses that hit the length limit out of the loss")
    importance_cap: PositiveFloat | None = Field(
        default=None, description="truncated importance weights against the sampler's log-probs"
    )


class OffPolicyConfig(Block):
    """The term of the teachers' tokens."""

    aggregator: Aggregator = "seq"  # type: ignore[assignment]
    shaping: Shaping = "ratio"  # type: ignore[assignment]
    clip: Clip | None = Field(default=None, description="on the shaped ratio")
    weight: TermWeight = "unit"
    behaviour: Literal["one", "recorded"] = Field(
        default="one", description="π_φ: 1, or the teacher's recorded log-probs"
    )


class KlConfig(Block):
    """KL to the start model, on-policy tokens only, weighted like the on-policy term."""

    coefficient: PositiveFloat = 0.001
    estimator: Literal["k1", "k2", "k3"] = "k3"


class GroupFilterConfig(Block):
    """Drops groups without signal, after guidance."""

    drop: list[Literal["all_correct", "all_wrong"]] = Field(default=["all_correct", "all_wrong"], min_length=1)
    resample: bool = Field(default=False, description="sample further questions until the batch is full again")


class ObjectiveConfig(Block):
    """The loss (Eq. 1, 2, 6, 7)."""

    scope: Literal["group", "batch"] = Field(
        default="group", description="aggregate per question and average, or over the mini-batch"
    )
    advantage: Advantage = "group_normalized"  # type: ignore[assignment]
    on_policy: OnPolicyConfig = {}  # type: ignore[assignment]
    off_policy: OffPolicyConfig = {}  # type: ignore[assignment]
    entropy_coefficient: NonNegativeFloat = 0.001
    kl: KlConfig | None = None
    group_filter: GroupFilterConfig | None = None


class OptimizerConfig(Block):
    """AdamW and its schedule; shared by train and sft."""

    tokens_per_microbatch: PositiveInt = Field(
        default=18432, description="hard cap on rows × longest row of a forward pass"
    )
    learning_rate: NonNegativeFloat = 1.0e-6
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    weight_decay: NonNegativeFloat = 0.1
    grad_clip: PositiveFloat = 1.0
    max_skipped_steps: PositiveInt = Field(default=3, description="stop after this many non-finite updates in a row")


class TrainingConfig(OptimizerConfig):
    """Batches and steps of a train job; sizes count questions over all ranks."""

    steps: PositiveInt = 500
    questions_per_batch: PositiveInt = 128
    questions_per_minibatch: PositiveInt = 64
    epochs_per_batch: PositiveInt = 1
    warmup_steps: NonNegativeInt = Field(default=0, description="optimizer steps of linear warm-up")


class DeepSpeedConfig(Block):
    """How DeepSpeed holds the model."""

    zero_stage: Literal[0, 1, 2, 3] = 3
    offload_optimizer: Literal["none", "cpu"] = "none"
    offload_parameters: Literal["none", "cpu"] = "none"


class EvaluationSet(Block):
    """One evaluation set: distinct questions of a file."""

    path: str
    where: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="column (dots reach inside) = value"
    )
    samples: PositiveInt = 1
    pass_at: list[PositiveInt] = Field(default_factory=list)
    reward: Reward | None = Field(default=None, description="null = the job's reward")
    limit: PositiveInt | None = Field(default=None, description="first so many distinct questions")


class EvaluationConfig(Block):
    """Sampling of held-out questions; shared by train and evaluate."""

    every: PositiveInt | None = Field(default=10, description="steps between evaluations; null = only at start and end")
    at_start: bool = True
    temperature: PositiveFloat = 0.6
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    max_response_tokens: PositiveInt | None = Field(default=None, description="null = the rollout's")
    sets: dict[str, EvaluationSet] = Field(min_length=1)

    @field_validator("sets", mode="before")
    @classmethod
    def _drop_removed(cls, value: Any) -> Any:
        return {name: item for name, item in value.items() if item is not None} if isinstance(value, dict) else value


class CheckpointConfig(Block):
    """What is kept."""

    every: PositiveInt | None = Field(default=50, description="steps; null = only the last")
    keep: PositiveInt = 2
    best: str | None = Field(default="eval/macro/avg", description="metric whose best checkpoint is never pruned")


class ResourcesConfig(Block):
    """Devices and threads."""

    devices: PositiveInt = 1
    nodes: PositiveInt = 1
    hostfile: str | None = None
    threads: PositiveInt | None = Field(
        default=None, description="CPU threads of a rank; null = all cores over the ranks"
    )
