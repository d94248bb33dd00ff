"""The config of the `evaluate` job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, PositiveInt

from ampo_core.config import rules
from ampo_core.config.data_files import SYSTEM_PROMPT, DataRead
from ampo_core.config.held_out import HeldOutConfig
from ampo_core.config.job import Job, Longest, NamedModel
from ampo_core.config.layouts import ColumnsField, LayoutField, PatternField, layout_findings
from ampo_core.config.nodes import Finding, KeyPath, nearest
from ampo_core.config.references import THIS, names_in
from ampo_core.config.tree import Block, Observers, ResourcesConfig, Reward, RolloutField, SampledModel, TrackerField
from ampo_core.config.values import PathText


class ComparisonConfig(Block):
    """What an evaluate job draws and says beside its table."""

    baseline: str | None = Field(default=None, description="model that the others are compared with; null = the first")
    curves: dict[str, PathText] = Field(
        default={}, description="name -> run folder whose metrics are drawn into curves.png"
    )
    note: str | None = Field(default=None, description="caveats printed under the table")


class EvaluateDataConfig(Block):
    """How prompts of evaluation sets are read."""

    max_prompt_tokens: PositiveInt = Field(default=1024, description="longest prompt")
    overlong_prompts: Literal["drop", "cut"] = Field(
        default="drop", description="cut keeps the last max_prompt_tokens tokens"
    )
    system_prompt: str = Field(default="keep", description=SYSTEM_PROMPT)
    layout: LayoutField = None
    columns: ColumnsField = None
    answer_pattern: PatternField = None


class EvaluatedModel(SampledModel):
    """A model in Hugging Face format, or the run that trained it."""

    path: PathText = Field(
        description="Hugging Face folder or Hub name; a run folder: its final policy, with @best, @latest or @50 "
        "behind it that of another checkpoint; or a folder of a checkpoint"
    )


class EvaluateJob(Job):
    """avg@k, pass@k and mean length of one or more models."""

    job: Literal["evaluate"] = "evaluate"
    models: dict[str, EvaluatedModel] = Field(
        default={}, description="name -> model; may be left out with `predictions`, and then selects some of theirs"
    )
    predictions: list[PathText] = Field(
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
    observers: Observers = Field(default={})

    goes_on_changed = True

    def findings(self) -> Iterator[Finding]:
        yield from layout_findings(self.data, ("data",))
        yield from self.evaluation.findings()
        yield from self._named()
        if self.samples():
            yield from rules.unfit(self.rollout, self.resources)
        yield from rules.lone_hostfile(self.resources)
        if self.samples():
            yield from self._unread()

    def machines(self) -> ResourcesConfig | None:
        return self.resources if self.samples() else None

    def samples(self) -> bool:
        return not self.predictions

    def unshown(self) -> str | None:
        if self.samples():
            return None
        anew = f"this job grades the texts of {', '.join(self.predictions)} anew, and no model reads anything"
        return f"{anew}; name the config of the job that sampled them"

    def used_models(self) -> Iterator[NamedModel]:
        for name, model in self.models.items() if self.samples() else ():
            yield NamedModel.of(("models", name), model, may_be_run=True)

    def longest(self) -> Iterator[Longest]:
        for model in self.used_models():
            response = self.evaluation.longest_response(self.rollout)
            yield Longest.of(model.name, self.data, self.data.max_prompt_tokens, *response)

    def used_data(self) -> Iterator[DataRead]:
        if self.samples():
            yield from self.evaluation.used_data(self.data, self.reward)

    def used_files(self) -> Iterator[tuple[KeyPath, str]]:
        yield from ((("predictions", i), text) for i, text in enumerate(self.predictions))
        yield from ((("comparison", "curves", name), text) for name, text in self.comparison.curves.items())
        yield from super().used_files()

    def places(self) -> frozenset[str]:
        of_this = [names_in(model.path) == {THIS} for model in self.models.values()]
        return super().places() | ({"evaluations"} if self.samples() and of_this == [True] else set())

    def left_behind(self) -> str:
        return f"what was sampled stands in {self.run.folder}: run the same command again to go on with the rest"

    def _named(self) -> Iterator[Finding]:
        yield from rules.well_named(self.models, ("models",))
        if not self.models and not self.predictions:
            text = "names no model, and there are no predictions to grade anew; expected one of them"
            yield Finding(("models",), text)
        baseline = self.comparison.baseline
        if baseline is not None and baseline not in self.models and self.models:
            yield Finding(("comparison", "baseline"), f"no model is named {baseline!r}{nearest(baseline, self.models)}")

    def _unread(self) -> Iterator[Finding]:
        text = "an evaluate job takes its number of responses from evaluation.sets.NAME.samples"
        yield from rules.in_vain(self.rollout, ("group_size",), ("rollout",), text)
        text = "an evaluate job reads evaluation.temperature"
        yield from rules.in_vain(self.rollout, ("temperature",), ("rollout",), text)
        yield from rules.only_verifies(self.reward, ("reward",))
        yield from self.evaluation.unread()
