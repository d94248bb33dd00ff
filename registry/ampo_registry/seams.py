"""Spec bases of interventions, losses, schedules and judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

from ampo_registry.judges import Judge, JudgeRequest
from ampo_registry.protocols import BuildContext
from ampo_registry.samples import Intervened, InterventionRequest
from ampo_registry.specs import ComponentSpec
from ampo_registry.step import Schedule, StepContext
from ampo_registry.tokens import LogProbs
from ampo_registry.views import LossView

if TYPE_CHECKING:
    import torch


class Intervention(Protocol):
    """Decides what the groups that need guidance consist of."""

    def intervene(self, requests: Sequence[InterventionRequest], context: StepContext) -> Intervened: ...


class InterventionSpec(ComponentSpec):
    """Decides what a group that needs guidance consists of, once the teacher answers are selected."""

    kind: ClassVar[str] = "intervention"
    behaviour: ClassVar[tuple[str, ...]] = ("intervene",)

    @property
    def terms(self) -> frozenset[str]:
        """The terms of `objective.auxiliary` that it labels segments and extra samples with; one that is not declared
        there is refused before the run."""
        return frozenset()

    def build(self, context: BuildContext) -> Intervention:
        return self

    def intervene(self, requests: Sequence[InterventionRequest], context: StepContext) -> Intervened:
        """One `Guided` for each request. Called by every rank with the same requests, also when there are none;
        randomness comes only from `request.rng` and the seeds of `context.generate`."""
        self._missing("intervene")


class Loss(Protocol):
    """The loss of each token of a term: [tokens], differentiable."""

    def token_losses(self, view: LossView) -> torch.Tensor: ...


NEEDS = ("old", "rollout", "behaviour", "reference", "entropy")
"""What a loss may name in `needs`."""


class LossSpec(ComponentSpec):
    """Says what a token of a term costs."""

    kind: ClassVar[str] = "loss"
    behaviour: ClassVar[tuple[str, ...]] = ("token_losses",)
    zero_without_advantage: ClassVar[bool] = False
    """True if tokens whose advantage is 0 have no gradient: sequences without one are then not forwarded."""

    @property
    def needs(self) -> frozenset[str]:
        """What `view` must hold besides log-probs and advantages: any of `NEEDS`, each of which may cost a forward
        pass, and names of judges, whose log-probs of the term's tokens are `view.judge(name)`."""
        return frozenset()

    def build(self, context: BuildContext) -> Loss:
        return self

    def token_losses(self, view: LossView) -> torch.Tensor:
        """The loss of each token, [tokens], which a weighted sum turns into the term. A token's loss depends on tokens
        of its own sequence only, so that packing, micro-batches and ranks change nothing."""
        self._missing("token_losses")


class ScheduleSpec(ComponentSpec):
    """A number as a function of the step."""

    kind: ClassVar[str] = "schedule"
    behaviour: ClassVar[tuple[str, ...]] = ("value",)

    def build(self, context: BuildContext) -> Schedule:
        return self

    def value(self, step: int, steps: int, metrics: Mapping[str, float]) -> float:
        """The number at `step` (from 1) of `steps`; `metrics` are those of the step before, without times. Asked
        again for the same step it gives the same."""
        self._missing("value")

    def range(self) -> tuple[float, float] | None:
        """The least and the largest value it can take, or None if that is not known before the run."""
        return None


class JudgeSpec(ComponentSpec):
    """A frozen model that says how likely given tokens are after a given prompt. It is loaded only if something asks
    it."""

    kind: ClassVar[str] = "judge"
    behaviour: ClassVar[tuple[str, ...]] = ("logprobs",)

    @property
    def model(self) -> str | None:
        """The folder or Hub name of the model that it loads, if it loads one: looked for before the run, and its hash
        stands in the run's manifest."""
        return None

    def refuses(self, temperature: float) -> str | None:
        """Why it cannot give log-probs at the rollout's `temperature`, or None. Must be cheap."""
        return None

    def check(self, context: BuildContext) -> None:
        """Called before anything is loaded, on one rank, with the student's tokenizer in `context`: raise ConfigError
        for a model that is not there, a server that does not answer, or another vocabulary than the student's."""

    def build(self, context: BuildContext) -> Judge:
        return self

    def logprobs(self, requests: Sequence[JudgeRequest], temperature: float) -> list[LogProbs]:
        """For each request the log-prob of each of its tokens, in nats. `requests` are this rank's share, at least
        one, longest first."""
        self._missing("logprobs")
