"""The config of the `prepare` job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from ampo_registry.components import ComponentField
from ampo_registry.specs import TaskSpec
from pydantic import Field

from ampo_core.config import rules
from ampo_core.config.job import Job
from ampo_core.config.nodes import Finding
from ampo_core.config.tree import Reward
from ampo_core.config.values import PathText

TaskField = Annotated[TaskSpec, ComponentField("task")]


class PrepareJob(Job):
    """A task plugin's small world, graded and written in the data contract."""

    job: Literal["prepare"] = "prepare"
    task: TaskField = Field(description="what makes the questions")
    reward: Reward = Field(default="math_verify", description="what verifies the teachers' answers")  # type: ignore[assignment]
    out: PathText | None = Field(default=None, description="folder; null = the run's folder + /out")

    def findings(self) -> Iterator[Finding]:
        text = "prepare keeps what verifies as correct, whatever its reward; nothing reads this"
        yield from rules.in_vain(self.reward, rules.REWARD_ONLY, ("reward",), text)
