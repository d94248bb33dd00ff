"""The JSON Schema of configs, with the options of all plugins in it, and how to walk and describe it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from ampo_registry.catalog import Catalog, CatalogEntry
from ampo_registry.components import COMPONENT
from ampo_registry.faults import is_interruption
from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import models_json_schema

from ampo_core.config.jobs import JOBS
from ampo_core.config.nodes import Key, KeyPath, value_at

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_FEW = 4
_EXTENDS = {"type": "string", "description": "another config, relative to this file, that this one is merged into"}


def config_schema(catalog: Catalog) -> Schema:
    """The schema of a whole config file: any job, with every component in `catalog`."""
    definitions, references = _definitions(list(JOBS.values()), catalog)
    for job in JOBS.values():
        block = definitions[_name(references[job])]
        block["properties"] = {"extends": _EXTENDS, **block["properties"]}
        block["required"] = ["job", *block.get("required", [])]
    return {
        "$schema": DIALECT,
        "title": "AMPO config",
        "anyOf": [references[job] for job in JOBS.values()],
        "$defs": definitions,
    }


class SchemaView:
    """The schema of one job, walked along a config."""

    def __init__(self, job: type[BaseModel], catalog: Catalog) -> None:
        self._definitions, references = _definitions([job], catalog)
        self.root: Schema = references[job]

    def resolve(self, schema: Schema) -> Schema:
        """`schema` with its reference followed; keys beside `$ref` win."""
        while "$ref" in schema:
            schema = {**self._definitions[_name(schema)], **{k: v for k, v in schema.items() if k != "$ref"}}
        return schema

    def variants(self, schema: Schema) -> list[Schema]:
        """The alternatives of `schema`, flattened."""
        schema = self.resolve(schema)
        for word in ("anyOf", "oneOf", "allOf"):
            if word in schema:
                return [leaf for part in schema[word] for leaf in self.variants(part)]
        return [schema]

    def component(self, schema: Schema) -> tuple[str, str | None] | None:
        """(kind, default name) where a component stands, else None."""
        schema = self.resolve(schema)
        if COMPONENT in schema:
            default = schema.get("default")
            return str(schema[COMPONENT]), default if isinstance(default, str) else None
        inner = [part for word in ("anyOf", "oneOf") for part in schema.get(word, ())]
        return next((found for part in inner if (found := self.component(part))), None)

    def words(self, schema: Schema) -> list[str]:
        """The words that may stand in the place of a component and name none."""
        schema = self.resolve(schema)
        parts = () if COMPONENT in schema or not self.component(schema) else schema.get("anyOf", ())
        return [str(word) for part in parts if not self.component(part) for word in _words(part)]

    def names(self, schema: Schema) -> list[str]:
        """The names of the components that may stand there, also of those that cannot do without options."""
        named = [leaf.get("properties", {}).get("type", {}).get("const") for leaf in self.variants(schema)]
        return [str(name) for name in named if name is not None] if self.component(schema) else []

    def block(self, schema: Schema, value: Any) -> Schema | None:
        """The alternative of `schema` that the mapping `value` is meant for."""
        objects = [leaf for leaf in self.variants(schema) if leaf.get("type") == "object"]
        name = value.get("type") if isinstance(value, dict) else None
        named = [leaf for leaf in objects if leaf.get("properties", {}).get("type", {}).get("const") == name]
        if self.component(schema):
            return named[0] if named and name is not None else None
        return objects[0] if objects else None

    def child(self, schema: Schema, value: Any, key: Key) -> Schema | None:
        """The schema of entry `key` of `value`, or None where the schema knows none."""
        if isinstance(key, str) and not isinstance(value, list):
            block = self.block(schema, value) or {}
            found = block.get("properties", {}).get(key, block.get("additionalProperties"))
            return found if isinstance(found, dict) else None
        arrays = [leaf for leaf in self.variants(schema) if leaf.get("type") == "array"]
        if not arrays or not isinstance(key, int):
            return None
        fixed = arrays[0].get("prefixItems", [])
        found = fixed[key] if key < len(fixed) else arrays[0].get("items")
        return found if isinstance(found, dict) else None

    def at(self, value: Any, path: KeyPath) -> Schema | None:
        """The schema of `path` inside the whole config `value`."""
        schema: Schema | None = self.root
        for i, key in enumerate(path):
            if schema is None:
                return None
            schema = self.child(schema, value_at(value, path[:i]), key)
        return schema

    def drops_null(self, schema: Schema, value: Any) -> bool:
        """True iff null removes an entry of this mapping: it holds names of the user's, none of which may be null."""
        entries = (self.block(schema, value) or {}).get("additionalProperties")
        return isinstance(entries, dict) and bool(entries) and not self._admits_null(entries)

    def _admits_null(self, schema: Schema) -> bool:
        return any(
            leaf.get("type") == "null" or not ({"type", "enum", "const"} & set(leaf)) for leaf in self.variants(schema)
        )

    def choices(self, schema: Schema) -> list[str]:
        """The words that may stand there."""
        return [str(word) for leaf in self.variants(schema) for word in _words(leaf) if isinstance(word, str)]

    def describe(self, schema: Schema) -> str:
        """What may stand there, for a person."""
        schema = self.resolve(schema)
        if COMPONENT in schema:
            kind, names = str(schema[COMPONENT]), self.names(schema)
            written = "as a name or {type: NAME, ...}" if self.choices(schema) or not names else "as {type: NAME, ...}"
            article = "an" if kind[0] in "aeiou" else "a"
            return f"{article} {kind.replace('_', ' ')} ({', '.join(names) or 'none installed'}), {written}"
        if "anyOf" in schema and self.component(schema):
            return " or ".join(self.describe(part) for part in schema["anyOf"])
        return " or ".join(dict.fromkeys(self._leaf(leaf) for leaf in self.variants(schema)))

    def _leaf(self, leaf: Schema) -> str:
        if words := _words(leaf):
            listed = ", ".join(str(word) for word in words)
            return f"one of {listed}" if len(words) > 1 else listed
        kind = leaf.get("type")
        if kind in ("integer", "number"):
            return ("a whole number" if kind == "integer" else "a number") + _bounds(leaf)
        if kind == "array":
            if "prefixItems" in leaf:
                return f"a list [{', '.join(self.describe(item) for item in leaf['prefixItems'])}]"
            least = " of at least one" if leaf.get("minItems") else ""
            return f"a list{least}, each {self.describe(leaf['items'])}" if leaf.get("items") else f"a list{least}"
        if kind == "string" and "pattern" in leaf:
            longest = f", at most {leaf['maxLength']} characters" if "maxLength" in leaf else ""
            return f"text that matches {leaf['pattern']}{longest}"
        if kind == "object" and 0 < len(leaf.get("properties", ())) <= _FEW:
            return f"a mapping with {', '.join(leaf['properties'])}"
        names = {"string": "text", "boolean": "true or false", "null": "null", "object": "a mapping"}
        return names.get(str(kind), "any value")


def _words(leaf: Schema) -> list[Any]:
    return list(leaf["enum"]) if "enum" in leaf else [leaf["const"]] if "const" in leaf else []


def _bounds(leaf: Schema) -> str:
    signs = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    parts = [f"{sign} {_number(leaf[word])}" for word, sign in signs.items() if word in leaf]
    if "multipleOf" in leaf:
        parts.append(f"a multiple of {leaf['multipleOf']}")
    return f" {' and '.join(parts)}" if parts else ""


def _number(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _name(reference: Schema) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _definitions(jobs: list[type[BaseModel]], catalog: Catalog) -> tuple[dict[str, Schema], dict[type, Schema]]:
    """`$defs` of the jobs and of all components, and the reference of each job."""
    entries = [entry for entry in catalog.entries() if _has_schema(entry)]
    models: list[type[BaseModel]] = [*jobs, *(entry.spec for entry in entries)]
    references, top = models_json_schema([(model, "validation") for model in models])
    definitions: dict[str, Schema] = top["$defs"]
    for kind in catalog.kinds():
        definitions[f"component-{kind}"] = _component(
            catalog.entries(kind), {entry.spec: references[entry.spec, "validation"] for entry in entries}, definitions
        )
    _point_to_components(list(definitions.values()))
    return definitions, {job: references[job, "validation"] for job in jobs}


def _has_schema(entry: CatalogEntry) -> bool:
    try:
        entry.spec.model_json_schema()
    except PydanticInvalidForJsonSchema:
        return False
    except BaseException as error:  # a plugin's own json_schema_extra: its options are known by their names only
        if is_interruption(error):
            raise
        return False
    return True


def _component(
    entries: Sequence[CatalogEntry], references: dict[Any, Schema], definitions: dict[str, Schema]
) -> Schema:
    objects: list[Schema] = []
    for entry in entries:
        if entry.spec in references:
            block = definitions[_name(references[entry.spec])]
            block["required"] = ["type", *(key for key in block.get("required", []) if key != "type")]
            objects.append(references[entry.spec])
        else:
            type_only = {"type": {"const": entry.name, "type": "string"}}
            objects.append({"type": "object", "properties": type_only, "required": ["type"]})
    names = [
        entry.name for entry in entries if not any(field.is_required() for field in entry.spec.model_fields.values())
    ]
    return {"anyOf": [{"enum": names, "type": "string"}, *objects]} if names else {"anyOf": objects or [{"not": {}}]}


def view_of(job: type[BaseModel], catalog: Catalog) -> SchemaView:
    """The view of a job's schema, made once for what `catalog` holds: a suite asks for it dozens of times."""
    return _view(job, catalog, tuple(entry.spec for entry in catalog.entries()))


@lru_cache(maxsize=16)
def _view(job: type[BaseModel], catalog: Catalog, specs: tuple[type[BaseModel], ...]) -> SchemaView:
    return SchemaView(job, catalog)


def _point_to_components(nodes: Iterable[Any]) -> None:
    """Give every place of a component its reference, in place."""
    for node in nodes:
        if isinstance(node, dict):
            if COMPONENT in node:
                node["$ref"] = f"#/$defs/component-{node[COMPONENT]}"
            _point_to_components(node.values())
        elif isinstance(node, list):
            _point_to_components(node)
