"""Options that hold a component or a scheduled number: in YAML a name or `{type: name, …options}`, here a spec.

    shaping: Annotated[ShapingSpec, ComponentField("shaping")]        a component
    share: Scheduled = 0.5                                             a number, or a schedule

The catalog comes through pydantic's validation context, `{"catalog": Catalog}`; without one a name is looked up among
the installed plugins. A component builds what it holds with `context.build(spec)`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, cast

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from ampo_registry.catalog import Catalog, ComponentError
from ampo_registry.seams import ScheduleSpec
from ampo_registry.specs import ComponentSpec, build_options

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
        except Exception as error:  # a plugin's own validator: it must not look like a fault of the engine
            raise ComponentError(f"the {self.kind} refuses its options: {type(error).__name__}: {error}") from error

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
            if self.whole and value != int(value):
                raise ValueError("expected a whole number or a schedule")
            self._check(float(value), float(value))
            return int(value) if self.whole else float(value)
        spec = super()._resolve(value, info)
        found = spec.range()
        if found is not None:
            self._check(*found)
        return spec

    def _check(self, lowest: float, highest: float) -> None:
        least = -math.inf if self.least is None else self.least
        most = math.inf if self.most is None else self.most
        if not (math.isfinite(lowest) and math.isfinite(highest) and least <= lowest and highest <= most):
            given = "" if lowest == highest else f"the schedule gives values from {lowest:g} to {highest:g}; "
            raise ValueError(f"{given}expected finite numbers from {least:g} to {most:g}")


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


@cache
def _installed() -> Catalog:
    from ampo_registry.discovery import discover

    return discover().catalog


def _options(value: Any) -> Any:
    return build_options(value) if isinstance(value, ComponentSpec) else value
