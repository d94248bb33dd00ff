"""What every component must keep, whatever its kind."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import ParamSpec, TypeVar, cast

import yaml
from pydantic import ValidationError

from ampo_registry.catalog import Catalog
from ampo_registry.components import ComponentField, functions_in, specs_in
from ampo_registry.errors import AmpoError, PluginError
from ampo_registry.functions import FunctionFile
from ampo_registry.protocols import Buildable, BuildContext, Stateful
from ampo_registry.specs import ComponentSpec, build_options, component_name

P = ParamSpec("P")
T = TypeVar("T")


class Rules:
    """Says which component broke which rule."""

    def __init__(self, spec: ComponentSpec) -> None:
        self.spec = spec
        self.subject = f"{spec.kind} {component_name(type(spec))}"

    def __call__(self, condition: bool, rule: str, found: object = None) -> None:
        """Raise AssertionError with `rule`, and what was found instead, unless `condition` holds."""
        if not condition:
            raise AssertionError(f"{self.subject}: {rule}" + ("" if found is None else f"; found {found!r}"))

    @contextmanager
    def asking(self, method: str) -> Generator[None]:
        """While `method` runs: AssertionError for what it asks a step for and a run refuses."""
        try:
            yield
        except PluginError as error:
            raise AssertionError(f"{self.subject}: {method}() asked for what a run refuses: {error}") from error


def check_spec_class(spec: ComponentSpec) -> None:
    """A spec is well formed: documented, frozen, closed; it has a schema and survives a trip through YAML."""
    cls = type(spec)
    resolver = Catalog()
    for kind in dict.fromkeys(type(inner) for inner in specs_in(spec)):
        resolver.add(kind, "conformance", "0")
    for function in functions_in(spec):
        resolver.add_functions(FunctionFile(function.module, function.file, (function.name,), (), plain=True))
    rule = Rules(spec)
    rule(bool((cls.__doc__ or "").strip()), "the spec class needs a docstring")
    _check_held(rule, spec)
    options = build_options(spec)
    loaded = yaml.safe_load(yaml.safe_dump(dict(options)))
    again = resolver.resolve(cls.kind, loaded)
    rule(again == spec, "dumping to YAML and reading back must give an equal spec", again)
    schema = cls.model_json_schema()
    json.dumps(schema)
    rule(schema.get("additionalProperties") is False, "the JSON schema must refuse unknown options")
    try:
        resolver.resolve(cls.kind, {**options, "no_such_option": 1})
    except ValidationError:
        pass
    else:
        rule(False, "an unknown option must be refused")
    for name in cls.model_fields:
        try:
            setattr(spec, name, getattr(spec, name))
        except ValidationError:
            continue
        rule(False, f"the spec must be frozen, but {name} can be assigned")
    reason = spec.unavailable()
    rule(reason is None or bool(reason), "unavailable() must give a reason or None", reason)


def _check_held(rule: Rules, spec: ComponentSpec) -> None:
    """An option that holds a component holds its spec, also by default."""
    for name, field in type(spec).model_fields.items():
        value: object = getattr(spec, name)
        places = [item for item in field.metadata if isinstance(item, ComponentField)]
        named = any(isinstance(value, str) and value not in place.words for place in places)
        text = f"the default of {name} is a name and no component: give its Field validate_default=True"
        rule(not named, text, value)


def check_unavailable(spec: ComponentSpec, build: Callable[[BuildContext], object], context: BuildContext) -> None:
    """A component that says it is unavailable must refuse to be built with an error a person can read."""
    rule = Rules(spec)
    rule(spec.unavailable() is not None, "this check is for a component that is unavailable here")
    try:
        build(context)
    except AmpoError as error:
        rule(bool(str(error)), "the refusal of an unavailable component needs a text")
    else:
        rule(False, "building an unavailable component must raise an AmpoError")


def check_state(spec: ComponentSpec, component: object) -> None:
    """A component with memory must give its state in JSON types and take it back."""
    if isinstance(component, Stateful):
        state = component.state_dict()
        component.load_state_dict(json.loads(json.dumps(state)))
        Rules(spec)(component.state_dict() == state, "state_dict() must be the same after load_state_dict()")


LIVES = "memory lives in the component that build() returns, never on its module or its spec"


def check_memory(
    rule: Rules, spec: Buildable[T], act: Callable[[T, int], object], context: BuildContext | None = None
) -> None:
    """What a component does follows from what it was built of, what it was asked before, and its state alone.

    `act(component, n)` makes the n-th call, the same to every component, and gives what came of it. Two fresh builds
    that get the same calls must do the same; and a fresh build that took the state of a used one, through JSON, must
    go on as that one does.
    """
    given = context or BuildContext()
    first, other = (_acted(spec, act, given, seed) for seed in (1, 2))
    if first != other:
        same = (
            "two fresh builds that get the same calls must do the same: randomness comes only from what a call gives "
        )
        same += "(the rng of a request, seeds)"
        drawn = _acted(spec, act, given, 1) == first
        rule(drawn, f"{same}, and {LIVES}")
        rule(False, f"{same}, never from the global generator")
    used, resumed = replace(given, built={}), replace(given, built={})
    before, after = used.build(spec), resumed.build(spec)
    for number in range(USED):
        act(before, number)
    stateful = {place: part for place, part in used.built.items() if isinstance(part, Stateful)}
    for place, part in stateful.items():
        _hand_over(rule, place, part, resumed.built[place])
    text = "a fresh build that got the state of a used one must go on as that one does: all that it remembers belongs "
    text += "into state_dict() and load_state_dict()"
    if not stateful:
        text = "a component that goes by what it was asked before must give its memory to checkpoints: it needs "
        text += "state_dict() and load_state_dict()"
    for number in range(USED, 2 * USED):
        rule(act(before, number) == act(after, number), text)


USED = 5
"""Calls before a checkpoint, and after it."""


def _acted(spec: Buildable[T], act: Callable[[T, int], object], context: BuildContext, seed: int) -> list[object]:
    """What comes of some calls to a fresh build, with the global generator of `random` seeded so."""
    state = random.getstate()
    random.seed(seed)
    try:
        component = replace(context, built={}).build(spec)
        return [act(component, number) for number in range(2 * USED)]
    finally:
        random.setstate(state)


def _hand_over(rule: Rules, place: str, part: Stateful, fresh: object) -> None:
    rule(isinstance(fresh, Stateful), f"{place}: every build must have state_dict() and load_state_dict()")
    try:
        state = json.loads(json.dumps(part.state_dict(), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{rule.subject}: {place}: state_dict() must give JSON types: {error}") from error
    cast(Stateful, fresh).load_state_dict(state)
    again = json.loads(json.dumps(cast(Stateful, fresh).state_dict()))
    rule(again == state, f"{place}: state_dict() must be the same after load_state_dict()", again)


def twice(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, T]:
    """The results of two calls, before which the global generator of `random` is seeded differently.

    A component that is deterministic under its own seeds gives the same twice. The generator's state is kept.
    """
    state = random.getstate()
    try:
        random.seed(1)
        first = call(*args, **kwargs)
        random.seed(2)
        return first, call(*args, **kwargs)
    finally:
        random.setstate(state)
