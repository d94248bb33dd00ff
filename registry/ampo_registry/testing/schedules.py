"""Conformance of schedules."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping
from typing import cast

from ampo_registry.protocols import BuildContext, Stateful
from ampo_registry.seams import ScheduleSpec
from ampo_registry.step import Schedule
from ampo_registry.testing.common import LIVES, Rules, check_memory, check_spec_class

RUNS = (1, 2, 7, 60)
"""Lengths of runs, in steps."""


def example_metrics(step: int) -> dict[str, float]:
    """Metrics as those of step `step` might be; there are none before the first step."""
    if step < 1:
        return {}
    share = step / (step + 10)
    return {"reward/mean": share, "reward/accuracy": share, "policy/entropy": 1.0 - share, "policy/loss": -0.1 * share}


def check_schedule(spec: ScheduleSpec, metrics: Callable[[int], Mapping[str, float]] = example_metrics) -> None:
    """A schedule gives a finite number within its `range()` for every step, the same when it is asked again, the same
    from two builds, and the same after a checkpoint.

    `metrics` gives those of a step; give your own if the schedule reads others. Before the first step there are none.
    """
    check_spec_class(spec)
    rule = Rules(spec)
    _check_range(rule, spec)
    for steps in RUNS:
        values = _values(rule, spec, spec.build(BuildContext()), 1, steps, metrics)
        rule(
            _values(rule, spec, spec.build(BuildContext()), 1, steps, metrics) == values,
            f"two builds must agree: {LIVES}",
        )
        for done in {0, 1, steps // 2, steps - 1}:
            _check_resumed(rule, spec, metrics, done, values)

    def act(schedule: Schedule, number: int) -> object:
        return schedule.value(number + 1, RUNS[-1], metrics(number))

    check_memory(rule, spec, act)


def _check_range(rule: Rules, spec: ScheduleSpec) -> None:
    limits = spec.range()
    pair = limits is None or (isinstance(cast(object, limits), tuple) and len(limits) == 2)
    numbers = pair and all(map(_is_number, limits or ()))
    rule(numbers, "range() must be (least, largest), two finite numbers, or None", limits)
    rule(limits is None or limits[0] <= limits[1], "range() must give the least value first", limits)


def _values(
    rule: Rules,
    spec: ScheduleSpec,
    component: Schedule,
    first: int,
    steps: int,
    metrics: Callable[[int], Mapping[str, float]],
) -> list[float]:
    """The values from step `first` on, each asked for twice."""
    return [_value(rule, spec, component, step, steps, metrics(step - 1)) for step in range(first, steps + 1)]


def _value(
    rule: Rules, spec: ScheduleSpec, component: Schedule, step: int, steps: int, metrics: Mapping[str, float]
) -> float:
    at = f"at step {step} of {steps}"
    kept = copy.deepcopy(dict(metrics))
    try:
        value, again = component.value(step, steps, metrics), component.value(step, steps, metrics)
    except KeyError as error:
        none = " (in the first step there are none: use metrics.get)" if step == 1 else ""
        raise AssertionError(f"{rule.subject}: it reads the metric {error}, which is not there {at}{none}") from error
    rule(_is_number(value), f"the value must be a finite number {at}", value)
    rule(value == again, f"asked again, it must give the same {at}", (value, again))
    rule(dict(metrics) == kept, "the metrics must be left as they are")
    limits = spec.range()
    if limits is not None:
        rule(
            limits[0] <= value <= limits[1],
            f"the value must lie in range(), {limits[0]:g} to {limits[1]:g}, {at}",
            value,
        )
    return value


def _check_resumed(
    rule: Rules, spec: ScheduleSpec, metrics: Callable[[int], Mapping[str, float]], done: int, values: list[float]
) -> None:
    """A run that goes on after `done` steps sees the same values as one that was left alone."""
    steps = len(values)
    before, after = spec.build(BuildContext()), spec.build(BuildContext())
    for step in range(1, done + 1):
        before.value(step, steps, metrics(step - 1))
    remembers = isinstance(before, Stateful) and isinstance(after, Stateful)
    if isinstance(before, Stateful) and isinstance(after, Stateful):
        after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    found = _values(rule, spec, after, done + 1, steps, metrics)
    why = (
        "load_state_dict() must put back all that a value depends on"
        if remembers
        else ("a value that depends on what was asked before needs state_dict() and load_state_dict()")
    )
    rule(found == values[done:], f"a run that goes on after step {done} must see the same values: {why}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
