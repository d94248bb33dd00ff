"""What a training step uses, once `assemble` has built it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ampo_registry.errors import RunError
from ampo_registry.protocols import Advantage, JsonValue, RolloutEngine, Selector, Stateful, Trigger
from ampo_registry.types import Question, SamplingOptions

from ampo_core.config.jobs import TrainJob
from ampo_core.config.tree import GuidanceConfig
from ampo_core.data.order import QuestionStream
from ampo_core.distributed.ranks import Ranks
from ampo_core.evaluation.evaluate import HeldOutSet, evaluate_sets
from ampo_core.grading.grader import Grader
from ampo_core.learner.learner import Learner
from ampo_core.loop.ahead import SampleAhead
from ampo_core.loop.guidance import TeacherLibrary
from ampo_core.loop.objective import Objective
from ampo_core.loop.scoring import PolicyScorer
from ampo_core.report.reporting import Reporter


@dataclass(frozen=True, slots=True)
class GuidanceParts:
    """What rescues a failed group."""

    config: GuidanceConfig
    trigger: Trigger
    library: TeacherLibrary
    selector: Selector
    scorer: PolicyScorer


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Held-out evaluation inside training; without an evaluation block it measures nothing."""

    job: TrainJob
    sets: tuple[HeldOutSet, ...]
    graders: dict[str, Grader]
    engine: RolloutEngine
    options: SamplingOptions | None
    ranks: Ranks

    def at_start(self) -> dict[str, float]:
        """Metrics of the start model, step 0."""
        return self._evaluate(0) if self.job.evaluation is not None and self.job.evaluation.at_start else {}

    def after(self, step: int) -> dict[str, float]:
        """Metrics after `step`, if an evaluation is due: every so many steps, and after the last."""
        evaluation = self.job.evaluation
        if evaluation is None:
            return {}
        due = step == self.job.training.steps or (evaluation.every is not None and step % evaluation.every == 0)
        return self._evaluate(step) if due else {}

    def _evaluate(self, step: int) -> dict[str, float]:
        assert self.options is not None
        result = evaluate_sets(
            self.sets,
            self.engine,
            self.graders,
            self.options,
            run_seed=self.job.run.seed,
            step=step,
            ranks=self.ranks,
            groups=self.job.evaluation.groups if self.job.evaluation is not None else None,
        )
        return result.metrics()


@dataclass(frozen=True, slots=True)
class TrainParts:
    """A train job, built."""

    job: TrainJob
    ranks: Ranks
    questions: tuple[Question, ...]
    order: QuestionStream
    grader: Grader
    guidance: GuidanceParts | None
    advantage: Advantage
    objective: Objective
    learner: Learner
    engine: RolloutEngine
    sampling: SamplingOptions
    ahead: SampleAhead
    evaluator: Evaluator
    reporter: Reporter

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.job.run.seed

    @property
    def threshold(self) -> float:
        """τ; without guidance its default, 0.5 + λ, so that "wrong" means the same."""
        return self.job.guidance.threshold if self.job.guidance else 0.5 + self.job.reward.format_weight

    @property
    def resample(self) -> bool:
        """True if groups that the filter drops are to be made up for."""
        group_filter = self.job.objective.group_filter
        return group_filter is not None and group_filter.resample

    def take(self, start: int, count: int) -> list[Question]:
        """`count` questions from position `start` of the stream on."""
        return [self.questions[i] for i in self.order.take(start, count)]

    def counted(self) -> dict[str, float]:
        """What was counted since the last call: verifier failures, and teacher answers that could not be used."""
        counts = self.ranks.each(self.grader.take_counts())
        verifier = {
            "verifier/timeouts": float(sum(count.timeouts for count in counts)),
            "verifier/errors": float(sum(count.errors for count in counts)),
        }
        if self.guidance is None:
            return verifier
        left_out = self.guidance.library.take_counts()
        return {
            **verifier,
            "guidance/left_out_incorrect": float(left_out.incorrect),
            "guidance/left_out_overlong": float(left_out.overlong),
            "guidance/left_out_ungraded": float(left_out.ungraded),
            "guidance/unscorable": float(self.guidance.scorer.take_unscorable()),
        }

    @property
    def gap_limit(self) -> float | None:
        """Largest mean difference between sampler and learner, nats a token; None = not checked."""
        return self.job.rollout.logprob_gap_limit

    def state_dict(self) -> dict[str, JsonValue]:
        """What the parts of this rank remember; the learner's state is its own business."""
        components: dict[str, JsonValue] = {name: part.state_dict() for name, part in self._stateful().items()}
        return {"components": components, "grader": self.grader.state_dict(), "ahead": self.ahead.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave. Raises RunError if a component with memory is new or gone."""
        parts = self._stateful()
        if set(parts) != set(state["components"]):
            found, wanted = sorted(state["components"]), sorted(parts)
            raise RunError(
                f"the checkpoint holds the memory of {found}, this run's components with memory are {wanted}"
            )
        for name, part in parts.items():
            part.load_state_dict(state["components"][name])
        self.grader.load_state_dict(state["grader"])
        self.ahead.load_state_dict(state["ahead"])

    def _stateful(self) -> dict[str, Stateful]:
        named: dict[str, object] = {"advantage": self.advantage, "rollout": self.engine, **self.objective.components()}
        if self.guidance is not None:
            guidance = self.guidance
            named |= {"trigger": guidance.trigger, "selector": guidance.selector, "teacher_pool": guidance.library.pool}
            named["teacher_library"] = guidance.library
        return {name: part for name, part in named.items() if isinstance(part, Stateful)}
