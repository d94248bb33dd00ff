"""A config field that holds a component: in YAML a name or `{type: name, …options}`, here a resolved spec.

The catalog comes through pydantic's validation context, `{"catalog": Catalog}`, so the tree itself is static.
"""

from __future__ import annotations

import json
from typing import Any

from ampo_registry.catalog import Catalog, ComponentError
from ampo_registry.specs import ComponentSpec, build_options
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

COMPONENT = "x-ampo-component"
"""Key of the JSON Schema that marks a component's place; its value is the kind."""


class ComponentField:
    """Annotation `Annotated[SelectorSpec, ComponentField("selector")]`: resolves the value against the catalog."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            self._resolve, serialization=core_schema.plain_serializer_function_ser_schema(_options)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {COMPONENT: self.kind}

    def _resolve(self, value: Any, info: ValidationInfo) -> ComponentSpec:
        """The spec; ComponentError and ValidationError reach pydantic, which adds where they happened."""
        try:
            return self._spec(value, info)
        except ValueError:
            raise
        except Exception as error:  # a plugin's own validator: it must not look like a fault of the engine
            raise ComponentError(f"the {self.kind} refuses its options: {type(error).__name__}: {error}") from error

    def _spec(self, value: Any, info: ValidationInfo) -> ComponentSpec:
        context = info.context or {}
        if "catalog" not in context:
            raise ValueError(f'a {self.kind} is resolved with the validation context {{"catalog": ...}}')
        catalog: Catalog = context["catalog"]
        if info.mode == "json" and isinstance(value, dict) and isinstance(value.get("type"), str):
            spec = catalog.entry(self.kind, value["type"], ("type",)).spec
            return spec.model_validate_json(json.dumps(value), strict=True)
        return catalog.resolve(self.kind, value)


def _options(value: Any) -> Any:
    return build_options(value) if isinstance(value, ComponentSpec) else value
