"""The block `objective`: the terms of the loss (Eq. 1, 2, 6, 7), and what they are made of."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Annotated, Any, Literal

from ampo_registry.components import ComponentField, ScheduledField
from ampo_registry.credit import CreditSpec
from ampo_registry.judges import POLICY, START
from ampo_registry.samples import OFF_POLICY, ON_POLICY
from ampo_registry.seams import NEEDS, InterventionSpec, LossSpec, ScheduleSpec
from ampo_registry.specs import AggregatorSpec, component_name
from ampo_registry.text import nearest
from pydantic import BeforeValidator, Field, PositiveFloat

from ampo_core.config.nodes import Finding, KeyPath
from ampo_core.config.tree import Block

Advantage = Annotated[CreditSpec, ComponentField("advantage")]
Aggregator = Annotated[AggregatorSpec, ComponentField("aggregator")]
Loss = Annotated[LossSpec, ComponentField("loss")]
Weight = Annotated[float | ScheduleSpec, ScheduledField(least=0.0)]
TermWeight = Annotated[
    float | str | ScheduleSpec, ScheduledField(least=0.0, words=("unit", "proportional", "token_share"))
]
NAME = re.compile(r"[a-z][a-z0-9_]*")


class OnPolicyConfig(Block):
    """The term of the student's own tokens."""

    aggregator: Aggregator = Field(default="token", description="how tokens are weighed")  # type: ignore[assignment]
    loss: Loss = Field(default="clip", description="what a token costs")  # type: ignore[assignment]
    weight: TermWeight = Field(
        default="unit",
        description="of the term: unit (1), proportional (its share of the responses), token_share, or a number",
    )
    mask_truncated: bool = Field(default=False, description="leave responses that hit the length limit out of the loss")
    importance_cap: PositiveFloat | None = Field(
        default=None, description="c: each token's loss is multiplied by min(π_old/π_sampler, c); null = not"
    )


class OffPolicyConfig(Block):
    """The term of the teachers' tokens."""

    aggregator: Aggregator = Field(default="seq", description="how tokens are weighed")  # type: ignore[assignment]
    loss: Loss = Field(default="shaped", description="what a token costs")  # type: ignore[assignment]
    weight: TermWeight = Field(default="unit", description="as for the on-policy term")


class AuxiliaryConfig(Block):
    """A further term, beside those of the student's and the teachers' tokens."""

    loss: Loss = Field(default="nll", description="what a token costs")  # type: ignore[assignment]
    samples: Literal["intervention", "guidance", "rollouts", "correct"] = Field(
        default="intervention",
        description="what it trains: what the intervention labels with its name, a selected teacher answer of each "
        "question, the student's tokens, or those of correct responses",
    )
    aggregator: Aggregator = Field(default="token", description="how tokens are weighed")  # type: ignore[assignment]
    weight: Weight = Field(default=1.0, description="of the term; 0 leaves it out of a step")


def _refuse_k1(estimator: Any) -> Any:
    if estimator == "k1":
        raise ValueError(
            "k1 estimates the KL without bias, but as a loss its gradient is 0 on average; k2 has the gradient of "
            "KL(π_θ‖π_ref), k3 that of KL(π_ref‖π_θ): expected one of k2, k3"
        )
    return estimator


class KlConfig(Block):
    """KL to the start model, on-policy tokens only, weighted like the on-policy term."""

    coefficient: PositiveFloat = Field(default=0.001, description="weight of the term")
    estimator: Annotated[Literal["k2", "k3"], BeforeValidator(_refuse_k1)] = Field(
        default="k3",
        description="estimate of a token's KL; on-policy its gradient is that of KL(π_θ‖π_ref) with k2, of "
        "KL(π_ref‖π_θ) with k3",
    )


class GroupFilterConfig(Block):
    """Drops groups without signal, after guidance."""

    drop: list[Literal["all_correct", "all_wrong"]] = Field(
        default=["all_correct", "all_wrong"], min_length=1, description="which groups carry no signal"
    )
    resample: bool = Field(default=False, description="sample further questions until the batch is full again")


def _of_loss(loss: LossSpec, path: KeyPath, judges: Collection[str]) -> Iterator[Finding]:
    known = (*NEEDS, START, POLICY, *judges)
    for name in sorted(loss.needs - set(known)):
        near = nearest(name, known)
        hint = f"; did you mean {near!r}?" if near else ""
        there = f"{', '.join(NEEDS)}; judges: {', '.join((START, POLICY, *judges))}"
        text = f"the loss needs {name!r}{hint}\nthere are {there}"
        yield Finding(path, text)


class ObjectiveConfig(Block):
    """The loss (Eq. 1, 2, 6, 7)."""

    scope: Literal["group", "batch"] = Field(
        default="group", description="aggregate per question and average, or over the mini-batch"
    )
    advantage: Advantage = Field(default="group_normalized", description="from rewards to advantages")  # type: ignore[assignment]
    on_policy: OnPolicyConfig = Field(default={})  # type: ignore[assignment]
    off_policy: OffPolicyConfig = Field(default={})  # type: ignore[assignment]
    auxiliary: dict[str, AuxiliaryConfig] = Field(default={}, description="further terms by name")
    entropy_coefficient: Weight = Field(
        default=0.001, description="weight of the entropy bonus, a mean over the tokens of the two terms"
    )
    kl: KlConfig | None = Field(default=None, description="null = no KL term")
    group_filter: GroupFilterConfig | None = Field(default=None, description="null = every group is trained on")

    def findings(self, intervention: InterventionSpec | None, judges: Collection[str] = ()) -> Iterator[Finding]:
        """What is wrong with the terms, and what of their options may not do what was meant; `intervention` is None
        where there is no guidance, `judges` are those that the config declares."""
        blocks = {"on_policy": self.on_policy.loss, "off_policy": self.off_policy.loss}
        for name, loss in blocks.items():
            yield from _of_loss(loss, ("objective", name, "loss"), judges)
        for name, term in self.auxiliary.items():
            path = ("objective", "auxiliary", name)
            if name in (*blocks, "loss", "importance") or not NAME.fullmatch(name):
                text = f"found {name!r}; expected lower case letters, digits and _, and no name of the core's own"
                yield Finding(path, text)
            if intervention is None and term.samples in ("intervention", "guidance"):
                yield Finding((*path, "samples"), f"found {term.samples} with guidance: null, which brings no samples")
            elif intervention is not None and term.samples == "intervention" and name not in intervention.terms:
                text = (
                    f"found intervention, and guidance.intervention ({component_name(type(intervention))}) names no "
                    f"term {name!r}: it may train nothing; samples: guidance trains a teacher answer of each question"
                )
                yield Finding((*path, "samples"), text, "warning")
            if term.samples == "guidance" and term.loss.zero_without_advantage:
                text = "found a loss without gradient where the advantage is 0; answers of guidance have none: use nll"
                yield Finding((*path, "loss"), text)
            if term.samples == "intervention" and term.loss.zero_without_advantage:
                text = "this loss has no gradient where the advantage is 0: it trains labelled segments of groups, and "
                yield Finding((*path, "loss"), text + "nothing of an intervention's extra samples", "warning")
            yield from _of_loss(term.loss, (*path, "loss"), judges)
        if intervention is None and self.advantage.reads_selections:
            text = "it reads which teacher answer was selected, and guidance: null selects none"
            yield Finding(("objective", "advantage"), text)
        for name in sorted(intervention.terms - self.auxiliary.keys()) if intervention is not None else ():
            near = nearest(name, self.auxiliary)
            hint = f"; did you mean {near!r}?" if near else ""
            declared = ", ".join(self.auxiliary) or "none"
            text = f"labels samples with the term {name!r}, which objective.auxiliary does not declare{hint}"
            yield Finding(("guidance", "intervention"), f"{text}\ndeclared: {declared}")

    @property
    def losses(self) -> dict[str, LossSpec]:
        """term -> what its tokens cost."""
        further = {name: term.loss for name, term in self.auxiliary.items()}
        return {ON_POLICY: self.on_policy.loss, OFF_POLICY: self.off_policy.loss, **further}

    def logs(self) -> Iterator[str]:
        """Metrics of the terms: each one's loss, and what it measures in every run."""
        yield from (f"policy/loss/{name}" for name in self.losses)
        for term, loss in self.losses.items():
            yield from (f"policy/{name}" if term == ON_POLICY else f"policy/{name}/{term}" for name in loss.logs)

    def reading_teachers(self) -> Iterator[KeyPath]:
        """The losses that read the log-probs that teachers' data recorded."""
        terms = {name: term for name, term in self.auxiliary.items() if term.samples in ("intervention", "guidance")}
        paths: dict[KeyPath, LossSpec] = {("objective", "off_policy"): self.off_policy.loss}
        paths |= {("objective", "auxiliary", name): term.loss for name, term in terms.items()}
        yield from ((*path, "loss") for path, loss in paths.items() if "behaviour" in loss.needs)

    @property
    def judges(self) -> frozenset[str]:
        """The judges that terms read; "reference" is the judge `start`, which the KL term reads too."""
        needs = frozenset(need for loss in self.losses.values() for need in loss.needs)
        start = {START} if "reference" in needs or self.kl is not None else set[str]()
        return needs - set(NEEDS) | start
