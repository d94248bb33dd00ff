"""The learning rate as a function of where a run stands."""

from __future__ import annotations

import pytest

from ampo_core.config.tree import OptimizerConfig
from ampo_core.learner.schedule import LearningRate


def test_the_schedule() -> None:
    optimizer = OptimizerConfig(learning_rate=1.0, schedule="cosine")
    rates = [LearningRate(optimizer, total=10, warmup=2).at(step) for step in range(11)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[6] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(0.0)
    linear = optimizer.model_copy(update={"schedule": "linear"})
    constant = optimizer.model_copy(update={"schedule": "constant"})
    assert LearningRate(linear, total=10, warmup=0).at(5) == pytest.approx(0.5)
    assert LearningRate(linear, total=10, warmup=0).at(2.5) == pytest.approx(0.75)
    assert LearningRate(constant, total=10, warmup=0).at(999) == 1.0
    assert LearningRate(constant, total=10, warmup=4).at(3.5) == 1.0


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_behind_its_end_the_rate_stays_nought(schedule: str) -> None:
    optimizer = OptimizerConfig(learning_rate=1.0, schedule=schedule)
    rate = LearningRate(optimizer, total=10, warmup=2)
    assert [rate.at(position) for position in (10, 11, 18, 30)] == pytest.approx([0.0] * 4)


def test_a_warm_up_may_be_all_but_a_step_or_all() -> None:
    optimizer = OptimizerConfig(learning_rate=1.0, schedule="linear")
    assert LearningRate(optimizer, total=10, warmup=9).at(9.5) == pytest.approx(0.5)
    assert LearningRate(optimizer, total=10, warmup=10).at(9) == 1.0
    assert LearningRate(optimizer, total=10, warmup=10).at(10) == 1.0
