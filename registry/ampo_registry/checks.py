"""What a spec class must look like before it enters the catalog. Every fault is said in the author's terms."""

from __future__ import annotations

import re
from typing import get_args

from pydantic.errors import PydanticUndefinedAnnotation

from ampo_registry.credit import AdvantageSpec, CreditSpec
from ampo_registry.errors import PluginError
from ampo_registry.options import check_options
from ampo_registry.pools import LateTeacherPoolSpec
from ampo_registry.seams import InterventionSpec, JudgeSpec, LossSpec, ScheduleSpec
from ampo_registry.selectors import ScoringSelectorSpec, SelectorSpec
from ampo_registry.specs import (
    AggregatorSpec,
    ComponentSpec,
    RewardSpec,
    RolloutSpec,
    ShapingSpec,
    TaskSpec,
    TeacherPoolSpec,
    TrackerSpec,
    TriggerSpec,
    component_name,
)
from ampo_registry.text import a, nearest

KINDS: dict[str, type[ComponentSpec]] = {
    base.kind: base
    for base in (
        RolloutSpec,
        RewardSpec,
        TriggerSpec,
        TeacherPoolSpec,
        SelectorSpec,
        InterventionSpec,
        CreditSpec,
        LossSpec,
        AggregatorSpec,
        ShapingSpec,
        ScheduleSpec,
        JudgeSpec,
        TrackerSpec,
        TaskSpec,
    )
}
"""The base of each kind, by its YAML name, in the order of the loop."""

_BASES = frozenset({ComponentSpec, ScoringSelectorSpec, LateTeacherPoolSpec, AdvantageSpec, *KINDS.values()})
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def check_spec(spec: object) -> tuple[str, str]:
    """The (kind, name) of a spec class. Raises PluginError that names the class and says what is wrong."""
    if not isinstance(spec, type) or not issubclass(spec, ComponentSpec):
        raise PluginError(f"{spec!r} is not a spec class: it must subclass one of {_base_names()}")
    kind = _kind(spec)
    name = component_name(spec)
    if not _NAME.fullmatch(name):
        raise PluginError(f"{spec.__name__}: the name {name!r} must be lower case letters, digits and _")
    if get_args(spec.model_fields["type"].annotation) != (name,):
        raise PluginError(f'{spec.__name__}: write its name as  type: Literal["{name}"] = "{name}"')
    if not spec.model_config.get("frozen") or spec.model_config.get("extra") != "forbid":
        raise PluginError(f'{spec.__name__}: model_config must keep frozen=True and extra="forbid"')
    _check_behaviour(spec)
    _check_complete(spec)
    check_options(spec)
    return kind, name


def _kind(spec: type[ComponentSpec]) -> str:
    if spec in _BASES:
        raise PluginError(f"{spec.__name__} is a base; subclass it")
    kind = getattr(spec, "kind", None)
    if not isinstance(kind, str) or kind not in KINDS or not issubclass(spec, KINDS[kind]):
        raise PluginError(f"{spec.__name__} has no kind: it must subclass one of {_base_names()}")
    return kind


def _base_names() -> str:
    return ", ".join(base.__name__ for base in KINDS.values())


def _brings(spec: type[ComponentSpec], method: str) -> bool:
    owner = next((parent for parent in spec.__mro__ if method in vars(parent)), None)
    return owner is not None and owner not in _BASES


def _check_behaviour(spec: type[ComponentSpec]) -> None:
    wanted = (spec.behaviour, KINDS[spec.kind].behaviour, ("build",))
    if any(all(_brings(spec, method) for method in methods) for methods in wanted):
        return
    own = [name for parent in spec.__mro__ if parent not in _BASES for name in vars(parent) if name[0] != "_"]
    missing = [method for method in spec.behaviour if not _brings(spec, method)]
    near = nearest(missing[0], own)
    hint = f"; is {near} misspelt?" if near else ""
    methods = " and ".join(f"{method}()" for method in missing)
    other = "" if "build" in missing else ", nor build()"
    raise PluginError(f"{spec.__name__}, {a(spec.kind)}, does not define {methods}{other}{hint}")


def _check_complete(spec: type[ComponentSpec]) -> None:
    try:
        spec.model_rebuild()
    except PydanticUndefinedAnnotation as error:
        raise PluginError(f"{spec.__name__}: the type {error.name!r} of an option is not defined") from error
