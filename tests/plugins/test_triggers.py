"""The built-in triggers on the equations' numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from ampo_plugins.triggers.adaptive import Adaptive
from ampo_plugins.triggers.always import Always
from ampo_registry import Grade, Question, Rollout, RolloutGroup, TriggerContext

CONTEXT = TriggerContext(1)


def group(rewards: Sequence[float], threshold: float = 0.6) -> RolloutGroup:
    rollouts = tuple(Rollout((1,), (0.0,), "", "stop", 0) for _ in rewards)
    grades = tuple(Grade(reward, reward >= 0.9, False) for reward in rewards)
    return RolloutGroup(Question("u", (), (), "1", "s"), rollouts, grades, threshold)


def test_adaptive_matches_the_equation(golden: Callable[[str], dict[str, Any]]) -> None:
    cases = golden("paper_eq1_3_6")["cases"]
    assert len(cases) == 3
    for case in cases:
        assert Adaptive().fires(group(case["rewards"], 0.9), CONTEXT) is case["trigger_tau_0_9"]
        assert Adaptive().fires(group(case["rewards"], 0.5), CONTEXT) is case["trigger_tau_0_5"]


@pytest.mark.parametrize(
    ("rewards", "adaptive", "always"),
    [
        ([0.1, 0.0], True, True),
        ([0.1, 0.9], False, True),
        ([0.9, 1.0], False, False),
        ([0.6, 0.6], False, False),
        ([0.5999, 0.5999], True, True),
        ([-0.1, -1.0], True, True),
        ([], False, False),
    ],
)
def test_a_rollout_is_wrong_iff_below_the_threshold(rewards: list[float], adaptive: bool, always: bool) -> None:
    assert Adaptive().fires(group(rewards), CONTEXT) is adaptive
    assert Always().fires(group(rewards), CONTEXT) is always
