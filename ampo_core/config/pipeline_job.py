"""The config of the `pipeline` job, and what it shares with suites: stages, and that both run other configs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import Field

from ampo_core.config import rules
from ampo_core.config.inner import Inner
from ampo_core.config.job import Job
from ampo_core.config.nodes import Finding
from ampo_core.config.references import NAME
from ampo_core.config.tree import Block
from ampo_core.config.values import MAX_NAME, PathText


class Stage(Block):
    """One stage of a pipeline."""

    name: str = Field(
        pattern=rf"^{NAME}$", max_length=MAX_NAME, description="name of the stage, for ${stages.NAME.out}"
    )
    config: PathText = Field(description="path, relative to the pipeline's file")
    overrides: dict[str, Any] = Field(
        default={},
        description="KEY: VALUE, keys with dots; ${stages.NAME.out} names an earlier stage's output",
    )


class ComposedJob(Job):
    """A job that is made of others."""

    made_of_others = True

    def places(self) -> frozenset[str]:
        return frozenset()

    def left_behind(self) -> str:
        return f"what was written stands in {self.run.folder}; run the same command again, and what is finished is kept"


class PipelineJob(ComposedJob):
    """Stages one after the other; finished ones are not run again."""

    job: Literal["pipeline"] = "pipeline"
    stages: list[Stage] = Field(min_length=1, description="in the order in which they run")

    def findings(self) -> Iterator[Finding]:
        yield from rules.unique([stage.name for stage in self.stages], ("stages",))

    def inner_configs(self) -> list[Inner]:
        return inner_stages(self.stages)

    def places(self) -> frozenset[str]:
        return frozenset({"runs"})


def inner_stages(stages: Sequence[Stage]) -> list[Inner]:
    """The configs of `stages`, each of which may refer to those before it."""
    names = tuple(stage.name for stage in stages)
    return [Inner(("stages", i), stage.config, stage.overrides, names[:i]) for i, stage in enumerate(stages)]
