"""Held-out evaluation inside training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ampo_registry.protocols import RolloutEngine
from ampo_registry.types import SamplingOptions

from ampo_core.config.held_out import EvaluationConfig
from ampo_core.distributed.ranks import Ranks
from ampo_core.evaluation.evaluate import HeldOutSet, evaluate_sets
from ampo_core.grading.grader import Grader


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Evaluates the policy of a run of `steps` steps; without `config` it measures nothing. `seed` is the run's."""

    config: EvaluationConfig | None
    sets: tuple[HeldOutSet, ...]
    graders: Mapping[str, Grader]
    engine: RolloutEngine
    options: SamplingOptions | None
    ranks: Ranks
    seed: int
    steps: int

    def at_start(self) -> dict[str, float]:
        """Metrics of the start model, step 0."""
        return self._evaluate(0) if self.config is not None and self.config.at_start else {}

    def after(self, step: int) -> dict[str, float]:
        """Metrics after `step`, if an evaluation is due: every so many steps, and after the last."""
        if self.config is None:
            return {}
        every = self.config.every
        due = step == self.steps or (every is not None and step % every == 0)
        return self._evaluate(step) if due else {}

    def _evaluate(self, step: int) -> dict[str, float]:
        assert self.config is not None
        assert self.options is not None
        result = evaluate_sets(
            self.sets,
            self.engine,
            self.graders,
            self.options,
            run_seed=self.seed,
            step=step,
            ranks=self.ranks,
            groups=self.config.groups,
        )
        return result.metrics()
