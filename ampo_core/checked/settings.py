"""What a spec says of itself, asked once when a config is checked: later the same questions have good answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ampo_registry.catalog import Catalog
from ampo_registry.credit import CreditSpec
from ampo_registry.options import lost_option
from ampo_registry.pools import LateTeacherPoolSpec
from ampo_registry.seams import InterventionSpec, JudgeSpec, LossSpec
from ampo_registry.specs import AggregatorSpec, ComponentSpec, RewardSpec, RolloutSpec

from ampo_core.checked.call import Asked, PluginFault, shown

Check = Callable[[object], bool]


def setting_faults(spec: ComponentSpec, ranks: int, temperature: float, catalog: Catalog) -> Iterator[str]:
    """What is wrong with the answers of `spec` about itself, for a job on so many ranks that samples at
    `temperature`."""
    if (lost := lost_option(spec, {"catalog": catalog})) is not None:
        yield lost
    asked = Asked.of(spec)
    for question in _questions(asked, ranks, temperature):
        try:
            question()
        except PluginFault as fault:
            yield str(fault)


def _questions(asked: Asked, ranks: int, temperature: float) -> Iterator[Callable[[], None]]:
    spec = asked.component
    options = type(spec).model_fields

    def ask(method: str, good: Check, expected: str, *given: object) -> Callable[[], None]:
        return lambda: _require(asked, method, asked.ask(method, *given), good, expected)

    def read(attribute: str, good: Check, expected: str) -> Callable[[], None]:
        return lambda: _require(asked, attribute, asked.read(attribute), good, expected)

    def warnings() -> None:
        found = asked.within("warnings", lambda: list(spec.warnings()))
        _require(asked, "warnings", found, lambda said: all(_warns(one, options) for one in found), _WARNINGS)

    yield ask("unavailable", _is_reason, "a reason, or None where it can run")
    yield warnings
    yield read("logs", _are_names, "a tuple with the names of metrics")
    yield read("judges", _is_set, "a frozenset with the names of judges")
    if isinstance(spec, LossSpec):
        yield read("needs", _is_set, 'a frozenset of names such as "old"')
        yield read("zero_without_advantage", _is_bool, "True or False")
    if isinstance(spec, InterventionSpec):
        yield read("terms", _is_set, "a frozenset with the names of terms")
    if isinstance(spec, CreditSpec):
        yield read("reads_selections", _is_bool, "True or False")
    if isinstance(spec, JudgeSpec):
        yield read("model", _is_reason, "a folder or Hub name, or None")
        yield ask("refuses", _is_reason, "a reason, or None where it can", temperature)
    if isinstance(spec, LateTeacherPoolSpec):
        yield read("names", _are_names, "a tuple with the names of teachers")
    if isinstance(spec, AggregatorSpec):
        yield ask("depends_on_count", _is_bool, "True or False")
    if isinstance(spec, RewardSpec):
        for correct in (False, True):
            yield ask("earns", _is_span, "(least, most), two finite numbers, or None where not known", correct)
    if isinstance(spec, RolloutSpec):
        yield ask("unfit", _is_reason, "a reason, or None where it can run", ranks)
        yield ask("room", lambda room: _is_room(room, options), "(the option that says so, tokens), or None")


_WARNINGS = "(option, text) pairs, each with an option of its own"


def _require(asked: Asked, method: str, found: object, good: Check, expected: str) -> None:
    if not good(found):
        raise asked.wrong(method, shown(found), expected)


def _is_reason(found: object) -> bool:
    return found is None or (isinstance(found, str) and bool(found.strip()))


def _is_bool(found: object) -> bool:
    return isinstance(found, bool)


def _are_names(found: object) -> bool:
    return isinstance(found, tuple | list | set | frozenset) and all(isinstance(name, str) for name in found)


def _is_set(found: object) -> bool:
    return isinstance(found, set | frozenset) and _are_names(found)


def _is_span(found: object) -> bool:
    match found:
        case None:
            return True
        case (int() | float() as least, int() | float() as most):
            return -math.inf < least <= most < math.inf
        case _:
            return False


def _is_room(found: object, options: Iterable[str]) -> bool:
    match found:
        case None:
            return True
        case (str() as option, int() as tokens):
            return option in options and tokens > 0 and not isinstance(tokens, bool)
        case _:
            return False


def _warns(said: Any, options: Iterable[str]) -> bool:
    match said:
        case (str() as option, str() as text):
            return option in options and bool(text.strip())
        case _:
            return False
