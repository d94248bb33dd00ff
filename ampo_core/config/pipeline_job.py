"""The config of the `pipeline` job, and what it shares with suites: stages, and that both run other configs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, ClassVar, Literal

from ampo_registry.text import MAX_NAME
from pydantic import Field, PositiveInt

from ampo_core.config import rules
from ampo_core.config.inner import Inner
from ampo_core.config.job import Job
from ampo_core.config.nodes import Finding, KeyPath
from ampo_core.config.references import NAME, names_in
from ampo_core.config.tree import Block
from ampo_core.config.values import PathText

_OWN = ("done", "history", "logs")


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
    part: ClassVar[str] = "NAME"
    """The folder of a part, inside its own."""

    def places(self) -> frozenset[str]:
        return frozenset()

    def unshown(self) -> str | None:
        inner = [found for found in self.inner_configs() if found.path[0] == "stages"] or self.inner_configs()
        files: dict[str, list[str]] = {}
        for found in inner:
            files.setdefault(os.path.relpath(found.config), []).extend(filter(None, [self.part_at(found.path)]))
        names = ", ".join(f"{file} for {' and '.join(parts)}" if parts else file for file, parts in files.items())
        return (
            f"{super().unshown()}: name the config of one of its parts ({names}) with its references filled in: by "
            f"overrides (model.path=…), or as {self.run.folder / self.part / 'config.yaml'}, once the part has begun"
        )

    def part_at(self, path: KeyPath) -> str | None:
        """The name of the stage at `path`; None where another part stands there."""
        stages: Sequence[Stage] = getattr(self, "stages", ())
        return stages[int(path[1])].name if path[0] == "stages" else None

    def left_behind(self) -> str:
        return f"what was written stands in {self.run.folder}; run the same command again, and what is finished is kept"


class PipelineJob(ComposedJob):
    """Stages in order, or side by side where they do not need each other; finished ones are not run again."""

    job: Literal["pipeline"] = "pipeline"
    at_once: PositiveInt = Field(
        default=1,
        description="stages that may run side by side: those that refer to each other neither directly nor through "
        "others, each a process of its own with its share of threads and GPUs; 1 = all in this process",
    )
    stages: list[Stage] = Field(min_length=1, description="in the order in which they run, or start")

    def findings(self) -> Iterator[Finding]:
        yield from stage_findings(self.stages, "pipeline")
        for i, stage in enumerate(self.stages):
            if stage.name in _OWN:
                yield Finding(("stages", i, "name"), f"{stage.name!r} is the name of a file of the pipeline's own")

    def inner_configs(self) -> list[Inner]:
        return inner_stages(self.stages)

    def places(self) -> frozenset[str]:
        return frozenset({"runs"})

    def findings_together(self, written: Mapping[KeyPath, object]) -> Iterator[Finding]:
        if self.at_once > 1 and max(self.beside(self.needs(written)).values()) == 1:
            text = f"found {self.at_once}, but each stage needs all before it: they run one after the other"
            yield Finding(("at_once",), text, "warning")

    def needs(self, written: Mapping[KeyPath, object]) -> dict[str, frozenset[str]]:
        """stage -> the earlier ones that it refers to, directly or through others. `written` is what each says."""
        needs: dict[str, frozenset[str]] = {}
        for i, stage in enumerate(self.stages):
            uses = names_in(written[("stages", i)])
            needs[stage.name] = frozenset(uses).union(*(needs[name] for name in uses))
        return needs

    def beside(self, needs: Mapping[str, Set[str]]) -> dict[str, int]:
        """stage -> how many may run at a time while it runs, itself among them: those that neither need it nor are
        needed by it, but at most `at_once`. It follows from the config alone, and so does a stage's share."""
        apart = {
            name: [other for other in needs if other not in needs[name] and name not in needs[other]] for name in needs
        }
        return {name: min(self.at_once, len(others)) for name, others in apart.items()}


def stage_findings(stages: Sequence[Stage], owner: str) -> Iterator[Finding]:
    """Names that stand twice, and overrides of what the `owner` of the stages sets."""
    yield from rules.unique([stage.name for stage in stages], ("stages",))
    for i, stage in enumerate(stages):
        run = stage.overrides.get("run")
        inside = {f"run.{key}": ("run", key) for key in run} if isinstance(run, Mapping) else {}
        written: dict[str, KeyPath] = {**{key: (key,) for key in stage.overrides}, **inside}
        for key in ("run.name", "run.dir"):
            if key in written:
                text = f"{key} is set by the {owner}: a stage runs in the {owner}'s folder, under the stage's name"
                yield Finding(("stages", i, "overrides", *written[key]), text)


def inner_stages(stages: Sequence[Stage]) -> list[Inner]:
    """The configs of `stages`, each of which may refer to those before it."""
    names = tuple(stage.name for stage in stages)
    return [Inner(("stages", i), stage.config, stage.overrides, names[:i]) for i, stage in enumerate(stages)]
