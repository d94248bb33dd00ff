"""The config of the `sft` job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from ampo_core.config import rules
from ampo_core.config.data_files import SYSTEM_PROMPT, DataFile, DataRead
from ampo_core.config.job import LearningJob, Longest
from ampo_core.config.layouts import ColumnsField, LayoutField, PatternField, layout_findings
from ampo_core.config.metric_names import SFT
from ampo_core.config.nodes import Finding
from ampo_core.config.tree import (
    Block,
    CheckpointConfig,
    DeepSpeedConfig,
    Observers,
    OptimizerConfig,
    ResourcesConfig,
    TrackerField,
)
from ampo_core.config.weights import unadapted


class SftDataConfig(Block):
    """Conversations to imitate."""

    train: list[DataFile] = Field(
        min_length=1, description="files of examples (.parquet, .jsonl, .json, .csv), or {hub: NAME, split: train}"
    )
    format: Literal["pool", "messages"] = Field(
        default="pool",
        description="pool: every (question, teacher answer) pair of the data contract; messages: rows of conversations",
    )
    layout: LayoutField = None
    columns: ColumnsField = None
    answer_pattern: PatternField = None
    system_prompt: str = Field(default="keep", description=SYSTEM_PROMPT)
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


class SftJob(LearningJob):
    """Supervised fine-tuning, full or LoRA; the loss is on the answer only."""

    job: Literal["sft"] = "sft"
    data: SftDataConfig
    training: SftTrainingConfig = SftTrainingConfig()
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    checkpoint: SftCheckpointConfig = SftCheckpointConfig()
    resources: ResourcesConfig = ResourcesConfig()
    tracking: list[TrackerField] = Field(default=[], description="where metrics go besides the run folder")
    observers: Observers = Field(default={})

    def findings(self) -> Iterator[Finding]:
        if self.training.tokens_per_microbatch < self.data.max_tokens:
            longest = f"one example may have data.max_tokens = {self.data.max_tokens}"
            text = f"found {self.training.tokens_per_microbatch}; {longest}"
            yield Finding(("training", "tokens_per_microbatch"), text)
        yield from layout_findings(self.data, ("data",))
        if self.data.format == "messages":
            for option in ("layout", "columns", "answer_pattern"):
                if getattr(self.data, option) is not None:
                    text = "with format: messages rows are conversations in the column messages; nothing reads this"
                    yield Finding(("data", option), text, "warning")
        yield from rules.known_best(self.checkpoint, SFT)
        yield from rules.sharded(self.deepspeed, self.model.dtype)
        yield from rules.lone_hostfile(self.resources)
        yield from unadapted(self.model)

    def machines(self) -> ResourcesConfig:
        return self.resources

    def longest(self) -> Iterator[Longest]:
        if "max_tokens" in self.data.model_fields_set:
            text = "an example of more tokens than positions would be refused; a lower data.max_tokens leaves it out"
            yield Longest(("data", "max_tokens"), self.model.path, self.data.max_tokens, text, "warning")

    def used_data(self) -> Iterator[DataRead]:
        form: Literal["messages", "examples"] = "messages" if self.data.format == "messages" else "examples"
        for i, file in enumerate(self.data.train):
            yield DataRead(("data", "train", i), file, self.data, format=form)
