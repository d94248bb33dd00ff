"""Options that hold a component or a scheduled number: in YAML a name or `{type: name, …options}`, here a spec.

    shaping: Annotated[ShapingSpec, ComponentField("shaping")]        a component
    share: Scheduled = 0.5                                             a number, or a schedule

The catalog comes through pydantic's validation context, `{"catalog": Catalog}`; without one a name is looked up among
the installed plugins. A component builds what it holds with `context.build(spec)`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, cast

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from ampo_registry.catalog import Catalog, ComponentError
from ampo_registry.faults import describe, is_interruption, place_of
from ampo_registry.functions import PluginFunction
from ampo_registry.seams import ScheduleSpec
from ampo_registry.specs import ComponentSpec, build_options

LARGEST = sys.float_info.max
COMPONENT = "x-ampo-component"
"""Key of the JSON Schema that marks a component's place; its value is the kind."""


class ComponentField:
    """Annotation `Annotated[SelectorSpec, ComponentField("selector")]`: resolves the value against the catalog."""

    words: tuple[str, ...] = ()
    """What may stand in its place and is no component."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            self._resolve, serialization=core_schema.plain_serializer_function_ser_schema(_options)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {COMPONENT: self.kind}

    def _resolve(self, value: Any, info: ValidationInfo) -> Any:
        """The spec; ComponentError and ValidationError reach pydantic, which adds where they happened."""
        try:
            return self._spec(value, info)
        except ValueError:
            raise
        except BaseException as error:  # a plugin's own validator: it must not look like a fault of the engine
            if is_interruption(error):
                raise
            raise ComponentError(f"the {self.kind} refuses its options: {describe(error)}{_at(error)}") from error

    def _spec(self, value: Any, info: ValidationInfo) -> ComponentSpec:
        catalog = cast(Catalog, cast(dict[str, object], info.context or {}).get("catalog") or _installed())
        options = cast(dict[str, object], value) if isinstance(value, dict) else {}
        if info.mode == "json" and isinstance(name := options.get("type"), str):
            spec = catalog.entry(self.kind, name, ("type",)).spec
            return spec.model_validate_json(json.dumps(value), strict=True, context={"catalog": catalog})
        return catalog.resolve(self.kind, cast(object, value))


class ScheduledField(ComponentField):
    """Annotation of an option that is a number from `least` to `most`, or a schedule whose values are; or one of
    `words`. `whole`: the number is an int."""

    def __init__(
        self, least: float | None = None, most: float | None = None, words: tuple[str, ...] = (), *, whole: bool = False
    ) -> None:
        super().__init__("schedule")
        self.least, self.most, self.words, self.whole = least, most, words, whole

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        bounds = {"minimum": self.least, "maximum": self.most}
        number: JsonSchemaValue = {"type": "integer" if self.whole else "number"}
        number |= {key: bound for key, bound in bounds.items() if bound is not None}
        words = [{"enum": list(self.words), "type": "string"}] if self.words else []
        return {"anyOf": [*words, number, {COMPONENT: self.kind}]}

    def _resolve(self, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str) and value in self.words:
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            if not self._allows(value, value) or (self.whole and value != int(value)):
                raise ValueError(f"expected {self._expected()}")
            return int(value) if self.whole else float(value)
        if value is None or isinstance(value, bool | list | tuple):
            raise ValueError(f"expected {self._expected()}")
        spec = super()._resolve(value, info)
        limits = _range(spec)
        if limits is not None and not self._allows(*limits):
            given = f"the schedule gives values from {limits[0]:g} to {limits[1]:g}"
            raise ValueError(f"{given}; expected values{self._bounds()}")
        return spec

    def _allows(self, lowest: float, highest: float) -> bool:
        least = -LARGEST if self.least is None else self.least
        most = LARGEST if self.most is None else self.most
        return least <= lowest <= highest <= most

    def _bounds(self) -> str:
        named = ((">=", self.least), ("<=", self.most))
        bounds = [f"{sign} {bound:g}" for sign, bound in named if bound is not None]
        return f" {' and '.join(bounds)}" if bounds else " that are finite"

    def _expected(self) -> str:
        number = f"a {'whole' if self.whole else 'finite'} number" + self._bounds().removesuffix(" that are finite")
        return ", ".join([*self.words, number]) + " or a schedule"


def _range(spec: ScheduleSpec) -> tuple[float, float] | None:
    """`spec.range()`, which is a plugin's own code. Raises ComponentError for what is none."""
    where = f"range() of the schedule {type(spec).__name__}"
    try:
        found = cast(object, spec.range())
    except BaseException as error:
        if is_interruption(error):
            raise
        raise ComponentError(f"{where} raised {describe(error)}{_at(error)}") from error
    if found is None:
        return None
    pair = cast(tuple[object, ...], found) if isinstance(found, tuple) else ()
    match pair:
        case (int() | float() as least, int() | float() as most) if least <= most:
            return float(least), float(most)
        case _:
            raise ComponentError(f"{where} gave {found!r}: expected (least, largest), or None where that is not known")


def _at(error: BaseException) -> str:
    place = place_of(error)
    return f" ({place})" if place else ""


Scheduled = Annotated[float | ScheduleSpec, ScheduledField()]
"""The type of an option that is a number or a schedule; `context.build` makes a `Schedule` of either."""


def specs_in(value: object) -> Iterator[ComponentSpec]:
    """All components that a config, a block or a spec holds, and those that they hold."""
    if isinstance(value, ComponentSpec):
        yield value
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from specs_in(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in cast(Mapping[object, object], value).values():
            yield from specs_in(item)
    elif isinstance(value, list | tuple):
        for item in cast(list[object], value):
            yield from specs_in(item)


def functions_in(value: object) -> Iterator[PluginFunction]:
    """All functions of plugin files that a component and those that it holds name."""
    for spec in specs_in(value):
        for name in type(spec).model_fields:
            if isinstance(found := getattr(spec, name), PluginFunction):
                yield found


@cache
def _installed() -> Catalog:
    from ampo_registry.discovery import discover

    return discover().catalog


def _options(value: Any) -> Any:
    return build_options(value) if isinstance(value, ComponentSpec) else value
