"""What a training step uses, once `assemble` has built it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ampo_registry.credit import Credit
from ampo_registry.errors import RunError
from ampo_registry.protocols import Advantage, BuildContext, JsonValue, RolloutEngine, Stateful
from ampo_registry.step import StepContext
from ampo_registry.types import RolloutGroup

from ampo_core.checked.component import memory_of
from ampo_core.config.jobs import TrainJob
from ampo_core.config.tree import TrainingConfig
from ampo_core.data.tokens import PromptTokenizer
from ampo_core.distributed.ranks import Ranks
from ampo_core.learner.learner import Learner
from ampo_core.learner.schedule import LearningRate
from ampo_core.loop.credit import GroupFilter
from ampo_core.loop.evaluator import Evaluator
from ampo_core.loop.groups import GuidedQuestion
from ampo_core.loop.guidance import Guide
from ampo_core.loop.judges import Judges
from ampo_core.loop.objective import ObjectiveParts
from ampo_core.loop.probe import Probe
from ampo_core.loop.sampling import Questions, Sampler
from ampo_core.loop.services import Services
from ampo_core.report.reporting import Reporter

MOVED = {"shaping": "off_policy.loss.shaping"}
"""Places of components in checkpoints of version 0.1, and where they are built today."""


@dataclass(frozen=True, slots=True)
class SamplingParts:
    """What samples, grades and guides a batch, once it is built. `notes` are what is said of questions and tokens."""

    questions: Questions
    tokenizer: PromptTokenizer
    judges: Judges
    sampler: Sampler
    services: Services
    guide: Guide | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UpdateParts:
    """What makes a step's gradient: mini-batches, objective, learner, learning rate.

    `temperature` is the rollout's, `gap_limit` the largest mean difference between sampler and learner in nats a token
    (None: not checked).
    """

    training: TrainingConfig
    objective: ObjectiveParts
    learner: Learner
    judges: Judges
    ranks: Ranks
    learning_rate: LearningRate
    temperature: float
    gap_limit: float | None

    @classmethod
    def build(cls, job: TrainJob, context: BuildContext, learner: Learner, judges: Judges) -> UpdateParts:
        """The parts of a train job, with losses, aggregators and schedules built in `context`."""
        training = job.training
        return cls(
            training=training,
            objective=ObjectiveParts(job.objective, context, job.rollout.max_response_tokens),
            learner=learner,
            judges=judges,
            ranks=learner.ranks,
            learning_rate=LearningRate(training, training.updates * training.steps, training.warmup_steps),
            temperature=job.rollout.temperature,
            gap_limit=job.rollout.logprob_gap_limit,
        )

    def terms(self, context: StepContext) -> tuple[str, ...]:
        """The terms that are trained in the step of `context`."""
        return tuple(term.name for term in self.objective.at(context).active)

    def learning_rate_at(self, step: int, done: int = 0, rounds: int = 1) -> float:
        """The learning rate after `done` of the `rounds` optimizer steps of step `step`.

        It follows the batches, not the optimizer steps: a batch of which the group filter left little makes fewer.
        """
        return self.learning_rate.at((step - 1) * self.training.updates + done * self.training.updates / rounds)


@dataclass(frozen=True, slots=True)
class TrainParts:
    """A train job, built, in the order of the hops. `ahead`: the next batch is sampled while the learner updates.
    `built` holds all components by their places."""

    steps: int
    questions: Questions
    sampler: Sampler
    services: Services
    guide: Guide | None
    advantage: Credit | Advantage
    group_filter: GroupFilter
    update: UpdateParts
    probe: Probe
    evaluator: Evaluator
    reporter: Reporter
    ahead: bool
    built: Mapping[str, object]

    @property
    def engine(self) -> RolloutEngine:
        """The sampler's copy of the policy."""
        return self.sampler.engine

    @property
    def learner(self) -> Learner:
        """The policy that is trained."""
        return self.update.learner

    def begin(self, step: int) -> StepContext:
        """The context of `step`, for all hooks of it."""
        return self.services.begin(step, self.guide.scorer if self.guide else None)

    def sample_ahead(self, step: int, taken: int) -> None:
        """Begin to sample the batch of `step`, from position `taken` of the question stream."""
        self.update.judges.sleep()
        self.sampler.sample_ahead(self.questions.take(taken, self.group_filter.batch), step)

    def finish(
        self,
        step: int,
        metrics: Mapping[str, float],
        sampled: Sequence[RolloutGroup],
        guided: Sequence[GuidedQuestion],
        kept: Sequence[int],
    ) -> None:
        """End `step`: its metrics are there for the next one, and the selector is told what became of all questions
        that were `sampled`, of which those at `kept` were trained."""
        self.services.finish(metrics)
        if self.guide is not None:
            self.guide.feedback(sampled, guided, set(kept), step)

    def take_counts(self) -> dict[str, float]:
        """Metrics of what was counted since the last call: failures of the verifier, teacher answers left out."""
        return {**self.sampler.take_counts(), **(self.guide.take_counts() if self.guide else {})}

    def state_dict(self) -> dict[str, JsonValue]:
        """What the parts of this rank remember; the learner's state is its own business."""
        components: dict[str, JsonValue] = {name: memory_of(part) for name, part in self._stateful().items()}
        sampler = self.sampler
        return {
            "components": components,
            "grader": sampler.grader.state_dict(),
            "ahead": sampler.ahead.state_dict(),
            "services": self.services.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave. Raises RunError if a component with memory is new or gone."""
        parts = self._stateful()
        memories = {MOVED.get(name, name): memory for name, memory in state["components"].items()}
        if set(parts) != set(memories):
            found, wanted = sorted(memories), sorted(parts)
            raise RunError(
                f"the checkpoint holds the memory of {found}, this run's components with memory are {wanted}"
            )
        for name, part in parts.items():
            part.load_state_dict(memories[name])
        self.sampler.grader.load_state_dict(state["grader"])
        self.sampler.ahead.load_state_dict(state["ahead"])
        if "services" in state:  # checkpoints of version 0.1 have none
            self.services.load_state_dict(state["services"])

    def _stateful(self) -> dict[str, Stateful]:
        named = dict(self.built) | ({"teacher_library": self.guide.library} if self.guide else {})
        return {name: part for name, part in named.items() if isinstance(part, Stateful)}
