"""The learning rate as a pure function of where the run stands, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ampo_core.config.tree import OptimizerConfig


@dataclass(frozen=True, slots=True)
class LearningRate:
    """The schedule of a run of `total` optimizer steps, `warmup` of which are a linear warm-up."""

    optimizer: OptimizerConfig
    total: int
    warmup: int

    def at(self, position: float) -> float:
        """The learning rate `position` optimizer steps after the start: warm-up, then constant, or linear or cosine to
        0. A batch that makes fewer updates than the others passes by in larger steps."""
        peak = self.optimizer.learning_rate
        if position < self.warmup:
            return min(peak, peak * (position + 1) / self.warmup)
        if self.optimizer.schedule == "constant":
            return peak
        progress = min(1.0, (position - self.warmup) / max(1, self.total - self.warmup))
        if self.optimizer.schedule == "linear":
            return peak * (1.0 - progress)
        return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
