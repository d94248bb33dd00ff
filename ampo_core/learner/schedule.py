"""The learning rate as a pure function of the step, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math

from ampo_core.config.tree import OptimizerConfig


def learning_rate_at(step: int, optimizer: OptimizerConfig, *, total_steps: int, warmup_steps: int) -> float:
    """Learning rate of optimizer step `step` (from 0): linear warm-up, then constant, or linear or cosine to 0."""
    if step < warmup_steps:
        return optimizer.learning_rate * (step + 1) / warmup_steps
    if optimizer.schedule == "constant":
        return optimizer.learning_rate
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    if optimizer.schedule == "linear":
        return optimizer.learning_rate * (1.0 - progress)
    return optimizer.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
