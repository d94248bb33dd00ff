"""What every job says of itself: its keys, the rules between them, what it needs, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ampo_registry.specs import ComponentSpec
from ampo_registry.text import a
from pydantic import BaseModel

from ampo_core.config.data_files import DataRead
from ampo_core.config.inner import Inner
from ampo_core.config.nodes import Finding, KeyPath, dotted
from ampo_core.config.tree import Block, ModelConfig, ResourcesConfig, RunConfig, SampledModel


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model that a config names: the key that says it, and what it says there.

    `may_be_run`: a run or a checkpoint may stand for its model.
    """

    path: KeyPath
    name: str
    chat_template: str | None = None
    may_be_run: bool = False

    @classmethod
    def of(cls, path: KeyPath, model: SampledModel, *, may_be_run: bool = False) -> NamedModel:
        """The model of the block at `path`."""
        return cls((*path, "path"), model.path, model.chat_template, may_be_run)


@dataclass(frozen=True, slots=True)
class Longest:
    """The most tokens that a job may ask a model to hold: the key that says so, the tokens, and how they add up."""

    path: KeyPath
    model: str
    tokens: int
    text: str
    severity: Literal["error", "warning"] = "error"

    @classmethod
    def of(cls, model: str, data: Block, prompt: int, response: int, path: KeyPath) -> Longest:
        """A prompt of `prompt` tokens, as `data` limits it, and a response of `response`, which the key at `path` says.

        A limit of prompts that nobody wrote is no reason to refuse: that they fit is seen when they are read.
        """
        if "max_prompt_tokens" not in data.model_fields_set:
            return cls(path, model, 1 + response, f"{dotted(path)} {response} and a prompt")
        return cls(path, model, prompt + response, f"data.max_prompt_tokens {prompt} + {dotted(path)} {response}")


class Job(Block):
    """Base of all jobs. A job overrides what is not so for it."""

    job: str
    run: RunConfig = RunConfig()

    made_of_others: ClassVar[bool] = False
    """It runs the configs that it names, each in a folder and in ranks of its own; references are among them."""
    goes_on_changed: ClassVar[bool] = False
    """A finished run of it whose config has changed since may go on, where that is allowed."""

    def findings(self) -> Iterator[Finding]:
        """What is wrong with a config that is valid field by field, then the options that nothing reads."""
        yield from ()

    def machines(self) -> ResourcesConfig | None:
        """What its ranks need; None for a job that runs as a single process."""
        return None

    def samples(self) -> bool:
        """False if its rollout would only be built to sit there."""
        return True

    def used_components(self) -> Iterator[tuple[KeyPath, ComponentSpec]]:
        """The components that it builds, wherever they stand, those inside of others too."""
        return (found for found in _components(self, ()) if found[0] != ("rollout",) or self.samples())

    def used_models(self) -> Iterator[NamedModel]:
        """The models that it loads."""
        yield from ()

    def longest(self) -> Iterator[Longest]:
        """What its limits ask of the models that it loads."""
        yield from ()

    def used_data(self) -> Iterator[DataRead]:
        """The rows that it reads."""
        yield from ()

    def used_files(self) -> Iterator[tuple[KeyPath, str]]:
        """The files and folders that it reads, models and rows apart."""
        machines = self.machines()
        if machines is not None and machines.hostfile is not None:
            yield ("resources", "hostfile"), machines.hostfile

    def lacks(self) -> Iterator[tuple[KeyPath, str]]:
        """What it needs of this machine besides, and does not find: (key, text)."""
        yield from ()

    def inner_configs(self) -> list[Inner]:
        """The configs that it names, in the order in which they run."""
        return []

    def left_out(self, written: Mapping[KeyPath, object]) -> set[KeyPath]:
        """The paths of inner configs that are not to run; `written` holds what each of them says."""
        return set()

    def findings_together(self, written: Mapping[KeyPath, object]) -> Iterator[Finding]:
        """What is wrong with the configs that it names taken together; `written` is as above."""
        yield from ()

    def places(self) -> frozenset[str]:
        """The blocks of other configs in which it may stand."""
        return frozenset({"stages"})

    def misplaced(self, place: str) -> str | None:
        """Why it cannot stand in the block `place` of another config (stages, runs, evaluations), or None."""
        if place in self.places():
            return None
        if place == "stages":
            return f"a stage cannot be {a(self.job)}"
        if place == "runs":
            return f"a run of a suite is a train, sft or pipeline job, and this is {a(self.job)} job"
        return "an evaluation of a suite is an evaluate job with one model, whose path is ${runs.this.out}"

    def unshown(self) -> str | None:
        """Why `--sample` has nothing to show of it, with what would work; None if it has."""
        return f"it shows jobs of the kinds train and evaluate, and this one is of the kind {self.job}"

    def left_behind(self) -> str:
        """What an interrupted run has left in its folder, which is there."""
        return f"what was written stands in {self.run.folder}, without a checkpoint: the same command starts over"


class LearningJob(Job):
    """A job that trains a model and leaves checkpoints."""

    model: ModelConfig

    goes_on_changed = True

    def used_models(self) -> Iterator[NamedModel]:
        yield NamedModel.of(("model",), self.model)

    def places(self) -> frozenset[str]:
        return frozenset({"stages", "runs"})

    def left_behind(self) -> str:
        checkpoints = sorted((self.run.folder / "checkpoints").glob("step-*"))
        if not checkpoints:
            return super().left_behind()
        return f"the last checkpoint is {checkpoints[-1]}: run the same command again to go on after it"


def _components(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, ComponentSpec]]:
    if isinstance(value, ComponentSpec):
        yield path, value
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _components(getattr(value, name), (*path, name))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _components(item, (*path, name))
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _components(item, (*path, i))
