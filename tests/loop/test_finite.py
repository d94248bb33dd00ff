"""What is not finite in an update is said with the name of what gave it: the loss of a term, or the KL."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from ampo_registry import Sample
from ampo_registry.testing import example_group

from ampo_core.loop.minibatch_loss import MiniBatchLoss
from tests.loop import objectives

GROUP = example_group((0.0, 1.0))
SAMPLE = Sample.sampled(GROUP.question, GROUP.rollouts[0], GROUP.grades[0])


def after_backward(log_prob: float, reference: float = -0.1, old: float = -0.1, **options: Any) -> MiniBatchLoss:
    """The loss of one token of advantage -1 whose log-prob is `log_prob`, after its backward."""
    objective = objectives.make_objective({"entropy_coefficient": 0.0, **options})
    tensor = lambda value: torch.tensor([value], dtype=torch.float32)  # noqa: E731
    one = objectives.sequence(1, 0, -1.0, False, old_log_probs=tensor(old), reference_log_probs=tensor(reference))
    loss = MiniBatchLoss(objective, [replace(one, sample=SAMPLE)], [0])
    loss([0], [tensor(log_prob).requires_grad_(True)], []).backward()
    return loss


def test_a_kl_that_overflows_is_not_put_on_the_loss() -> None:
    fault = after_backward(-100.0, kl={"estimator": "k3"}, on_policy={"importance_cap": None}).fault()
    assert fault is not None
    uid = GROUP.question.uid[:12]
    assert fault.text == f"objective.kl: question {uid}: the estimate gave inf; expected finite numbers"


def test_a_ratio_that_overflows_is_the_loss_s_and_stays_told() -> None:
    loss = after_backward(-0.1, old=-200.0, on_policy={"loss": {"type": "clip", "log_ratio_clamp": None}})
    fault = loss.fault()
    assert fault is not None
    assert fault.who.startswith("loss clip of on_policy")
    assert "gave inf in the term on_policy; expected finite numbers" in fault.text
    assert loss.fault() is fault
    assert loss.explain() == fault.text


@pytest.mark.parametrize("log_prob", [-0.2, float("nan")])
def test_what_is_finite_and_a_policy_that_is_not_are_no_fault_of_a_loss(log_prob: float) -> None:
    loss = after_backward(log_prob, kl={"estimator": "k3"})
    assert loss.fault() is None
    assert loss.explain() == ""
