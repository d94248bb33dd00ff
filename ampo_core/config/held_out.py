"""Held-out questions: the sets, how they are sampled, and what is made of them. Shared by train and evaluate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from ampo_registry.specs import RewardSpec, RolloutSpec
from pydantic import Field, NonNegativeFloat, PositiveInt

from ampo_core.config import rules
from ampo_core.config.data_files import DataFile, DataRead
from ampo_core.config.layouts import ColumnsField, LayoutField, PatternField, SaysLayout, layout_findings, said
from ampo_core.config.nodes import Finding, KeyPath, nearest
from ampo_core.config.tree import Block, Reward


class EvaluationSet(Block):
    """One evaluation set: distinct questions of a file. One that says none of layout, columns and answer_pattern has
    those of `data`."""

    path: DataFile = Field(description="file of questions (.parquet, .jsonl, .json, .csv), or {hub: NAME, split: test}")
    layout: LayoutField = None
    columns: ColumnsField = None
    answer_pattern: PatternField = None
    where: dict[str, str | int | float | bool] = Field(default={}, description="column (dots reach inside) = value")
    samples: PositiveInt = Field(default=1, description="K: responses to each question, for avg@K")
    pass_at: Literal["curve"] | list[PositiveInt] = Field(
        default=[], description="each k gives pass@k, at most samples; curve = 1, 2, 4, 8, … and samples"
    )
    reward: Reward | None = Field(default=None, description="null = the job's reward")
    limit: PositiveInt | None = Field(default=None, description="first so many distinct questions")

    def read_as(self, data: SaysLayout) -> SaysLayout:
        """What says how its rows are read: itself, or `data` where it says nothing."""
        return self if said(self) else data

    def tries(self) -> tuple[int, ...]:
        """The k of every pass@k, ascending."""
        if self.pass_at != "curve":
            return tuple(sorted(set(self.pass_at)))
        powers = [2**i for i in range(self.samples.bit_length()) if 2**i < self.samples]
        return (*powers, self.samples)


class HeldOutConfig(Block):
    """Held-out questions and how they are sampled; shared by train and evaluate."""

    temperature: NonNegativeFloat = Field(
        default=0.6, description="of sampling; 0 = greedy: the most probable token, whatever the seed and top_p"
    )
    top_p: float = Field(default=1.0, gt=0.0, le=1.0, description="nucleus of sampling")
    max_response_tokens: PositiveInt | None = Field(default=None, description="null = the rollout's")
    sets: dict[str, EvaluationSet] = Field(
        min_length=1, description="name -> set; null removes one that a parent config brought"
    )
    groups: dict[str, list[str]] = Field(
        default={},
        description="name -> names of sets: their mean is reported as eval/NAME/avg, beside the mean over all sets",
    )

    def findings(self) -> Iterator[Finding]:
        """What is wrong with an `evaluation` block that is valid field by field."""
        yield from rules.well_named(self.sets, ("evaluation", "sets"))
        if "macro" in self.sets:
            text = "macro is the name of the mean over all sets; choose another"
            yield Finding(("evaluation", "sets", "macro"), text)
        for name, item in self.sets.items():
            yield from layout_findings(item, ("evaluation", "sets", name))
            for k in item.tries():
                if k > item.samples:
                    text = f"pass@{k} needs at least {k} samples, found samples = {item.samples}"
                    yield Finding(("evaluation", "sets", name, "pass_at"), text)
            if item.samples > 1 and self.temperature == 0.0:
                text = f"found {item.samples}; at temperature 0 all samples of a question are the same"
                yield Finding(("evaluation", "sets", name, "samples"), text, "warning")
        yield from self._groups()

    def longest_response(self, rollout: RolloutSpec) -> tuple[int, KeyPath]:
        """The limit of a response, and the key that says it."""
        if self.max_response_tokens is None:
            return rollout.max_response_tokens, ("rollout", "max_response_tokens")
        return self.max_response_tokens, ("evaluation", "max_response_tokens")

    def _groups(self) -> Iterator[Finding]:
        yield from rules.well_named(self.groups, ("evaluation", "groups"))
        for name, members in self.groups.items():
            path = ("evaluation", "groups", name)
            if name == "macro" or name in self.sets:
                taken = "the name of the mean over all sets" if name == "macro" else "the name of a set"
                yield Finding(path, f"{name} is {taken}; choose another")
            if not members:
                yield Finding(path, "names no set")
            for i, member in enumerate(members):
                if member not in self.sets:
                    yield Finding((*path, i), f"no set is named {member!r}{nearest(member, self.sets)}")
                elif member in members[:i]:
                    yield Finding((*path, i), f"{member} stands twice")

    def unread(self) -> Iterator[Finding]:
        """A warning for each option of the sets' own rewards that was set and that nothing reads."""
        for name, item in self.sets.items():
            if item.reward is not None:
                yield from rules.only_verifies(item.reward, ("evaluation", "sets", name, "reward"))

    def used_data(self, data: SaysLayout, reward: RewardSpec) -> Iterator[DataRead]:
        """The rows of each set; one that does not say how they are read has them read as `data` says, and
        one without a reward of its own has them judged by `reward`."""
        for name, item in self.sets.items():
            place, judge = ("evaluation", "sets", name, "path"), item.reward or reward
            yield DataRead(place, item.path, item.read_as(data), item.where, reward=judge)


class EvaluationConfig(HeldOutConfig):
    """Evaluation inside a train job."""

    every: PositiveInt | None = Field(default=10, description="steps between evaluations; null = only at start and end")
    at_start: bool = Field(default=True, description="evaluate before the first step too")
