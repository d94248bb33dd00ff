"""A config field that holds a component: in YAML a name or `{type: name, …options}`, here a resolved spec.

The catalog comes through pydantic's validation context, so the tree itself is static.
"""

from __future__ import annotations

from typing import Any

from ampo_registry.catalog import Catalog
from ampo_registry.specs import ComponentSpec, build_options
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


class ComponentField:
    """Annotation `Annotated[SelectorSpec, ComponentField("selector")]`: resolves the value against the catalog."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            self._resolve,
            serialization=core_schema.plain_serializer_function_ser_schema(build_options),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"x-ampo-component": self.kind}

    def _resolve(self, value: Any, info: ValidationInfo) -> ComponentSpec:
        if isinstance(value, ComponentSpec):
            return value
        catalog: Catalog = (info.context or {})["catalog"]
        return catalog.resolve(self.kind, value)
