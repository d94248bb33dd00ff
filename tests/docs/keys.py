"""Whether a key that a page names is one of a config: for the tests of pages."""

from __future__ import annotations

from collections.abc import Sequence

from ampo_registry.discovery import discover

from ampo_core.config.jobs import JOBS
from ampo_core.config.schema import Schema, SchemaView

PLUGINS = discover()
VIEW = SchemaView(JOBS["train"], PLUGINS.catalog)


def is_key(path: Sequence[str], schema: Schema = VIEW.root) -> bool:
    """Whether a train job has this key, in any of the components that may stand along the way."""
    if not path:
        return True
    found = []
    for leaf in VIEW.variants(schema):
        properties, named = leaf.get("properties", {}), leaf.get("additionalProperties")
        if path[0] in properties:
            found.append(properties[path[0]])
        elif isinstance(named, dict):
            found.append(named)
    return any(is_key(path[1:], inner) for inner in found)
