"""Conformance of triggers."""

from __future__ import annotations

import copy
from typing import cast

from ampo_registry.protocols import BuildContext, Trigger
from ampo_registry.specs import TriggerSpec
from ampo_registry.testing.common import Rules, check_memory, check_spec_class
from ampo_registry.testing.examples import example_group
from ampo_registry.testing.steps import example_step, services_of

REWARDS: tuple[tuple[float, ...], ...] = (
    (0.0, 0.0, 0.0, 0.0),
    (0.1, 0.1, 0.1, 0.1),
    (0.0, 0.1, 0.9, 1.0),
    (0.6, 0.6, 0.6, 0.6),
    (1.0, 1.0, 1.0, 1.0),
    (-1.0, 0.0, 0.1, 0.5),
    (0.0,),
    (1.0,),
)


def check_trigger(spec: TriggerSpec) -> None:
    """A trigger answers True or False for any group and leaves it as it is. Two fresh builds that are asked the same
    answer alike, and so does one that goes on from a checkpoint."""
    check_spec_class(spec)
    rule = Rules(spec)
    component = spec.build(BuildContext())
    for rewards in REWARDS:
        group = example_group(rewards)
        kept = copy.deepcopy(group)
        with rule.asking("fires"):
            found = cast(object, component.fires(group, example_step(services=services_of(spec))))
        rule(type(found) is bool, "fires() must return a bool", found)
        rule(group == kept, "the group must be left as it is")

    def act(component: Trigger, number: int) -> object:
        context = example_step(number + 1, metrics={"reward/accuracy": 0.1 * number}, services=services_of(spec))
        return [component.fires(example_group(rewards), context) for rewards in REWARDS]

    check_memory(rule, spec, act)
