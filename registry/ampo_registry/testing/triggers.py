"""Conformance of triggers."""

from __future__ import annotations

import copy

from ampo_registry.protocols import BuildContext, Trigger
from ampo_registry.specs import TriggerSpec
from ampo_registry.step import TriggerContext
from ampo_registry.testing.common import Rules, check_spec_class, check_state, twice
from ampo_registry.testing.examples import example_group

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
    """A trigger answers True or False for any group, the same for the same group, and leaves it as it is."""
    check_spec_class(spec)
    rule = Rules(spec)
    component: Trigger = spec.build(BuildContext())
    for rewards in REWARDS:
        group = example_group(rewards)
        kept = copy.deepcopy(group)
        first, second = twice(component.fires, group, TriggerContext(step=1))
        rule(type(first) is bool, "fires() must return a bool", first)
        rule(first == second, "the same group must get the same answer", rewards)
        rule(group == kept, "the group must be left as it is")
    check_state(spec, component)
