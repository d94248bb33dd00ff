"""The config of the `pool` job."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from ampo_core.config.tree import Block, ResourcesConfig, Reward, RolloutField, RunConfig, SampledModel


class PoolTeacher(Block):
    """A model that writes teacher answers."""

    name: str = Field(description="the teacher's name in the pool")
    model: SampledModel
    system_prompt: str = Field(default="keep", description="keep, or a text that replaces every row's system prompt")
    temperature: NonNegativeFloat = Field(default=0.6, description="of sampling")
    top_p: float = Field(default=1.0, gt=0.0, le=1.0, description="nucleus of sampling")
    max_response_tokens: PositiveInt = Field(default=8192, description="longest answer")


class PoolJob(Block):
    """Builds a Multi-Guidance Pool."""

    job: Literal["pool"] = "pool"
    run: RunConfig = RunConfig()
    questions: list[str] = Field(min_length=1, description="files of questions")
    teachers: list[PoolTeacher] = Field(min_length=1, description="who answers")
    answers_per_question: PositiveInt = Field(default=8, description="answers of each teacher")
    keep: Literal["shortest"] = Field(default="shortest", description="which correct answer of a teacher stays")
    unify: Literal["intersection"] | None = Field(
        default=None, description="intersection: only questions that every teacher answered"
    )
    rollout: RolloutField = Field(default="vllm", description="what samples answers")  # type: ignore[assignment]
    reward: Reward = Field(default="math_verify", description="what verifies them")  # type: ignore[assignment]
    resources: ResourcesConfig = ResourcesConfig()
