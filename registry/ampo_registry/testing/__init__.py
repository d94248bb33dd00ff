"""Conformance kit: one function for each kind, called by a plugin's author in one line.

    def test_it() -> None:
        check_selector(NearestLength())

A failure is an AssertionError that names the component and the rule. Torch is imported only by the checks that need
tensors.
"""

from ampo_registry.testing.common import check_spec_class, check_unavailable
from ampo_registry.testing.credit import check_credit, example_credit_groups
from ampo_registry.testing.examples import (
    FakeScorer,
    example_grade,
    example_group,
    example_guidance,
    example_outcomes,
    example_question,
    example_report,
    example_request,
    example_requests,
    example_rollout,
)
from ampo_registry.testing.fakes import FakeEngine, FakePool
from ampo_registry.testing.interventions import check_intervention, example_interventions
from ampo_registry.testing.judges import check_judge
from ampo_registry.testing.losses import check_loss
from ampo_registry.testing.pools import check_teacher_pool
from ampo_registry.testing.rewards import check_reward
from ampo_registry.testing.rollouts import check_rollout
from ampo_registry.testing.schedules import check_schedule
from ampo_registry.testing.selectors import check_selector
from ampo_registry.testing.steps import FakeJudge, FakeServices, example_step
from ampo_registry.testing.tasks import check_task
from ampo_registry.testing.tensors import check_advantage, check_aggregator, check_shaping
from ampo_registry.testing.trackers import check_tracker
from ampo_registry.testing.triggers import check_trigger

__all__ = [
    "FakeEngine",
    "FakeJudge",
    "FakePool",
    "FakeScorer",
    "FakeServices",
    "check_advantage",
    "check_aggregator",
    "check_credit",
    "check_intervention",
    "check_judge",
    "check_loss",
    "check_reward",
    "check_rollout",
    "check_schedule",
    "check_selector",
    "check_shaping",
    "check_spec_class",
    "check_task",
    "check_teacher_pool",
    "check_tracker",
    "check_trigger",
    "check_unavailable",
    "example_credit_groups",
    "example_grade",
    "example_group",
    "example_guidance",
    "example_interventions",
    "example_outcomes",
    "example_question",
    "example_report",
    "example_request",
    "example_requests",
    "example_rollout",
    "example_step",
]
