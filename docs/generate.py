"""Write docs/config.md, the reference of all config keys, from the schema: `python docs/generate.py`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ampo_registry.catalog import Catalog
from ampo_registry.components import COMPONENT
from ampo_registry.discovery import discover

from ampo_core.cli.listing import default_text, options
from ampo_core.config.jobs import JOBS
from ampo_core.config.schema import Schema, SchemaView

TARGET = Path(__file__).parent / "config.md"
DISTRIBUTION = "ampo-rl"
INTRODUCTION = """# Config reference

<!-- Written by docs/generate.py from the schema; change the descriptions there, then run `make docs`. -->

A config is a YAML file with a `job`. Every key is listed here; any other key is an error. `ampo-run --check FILE`
prints a config with all defaults filled in, `ampo-run --schema` the JSON Schema for an editor.

- `extends: other.yaml` merges this file into another one; its path is relative to this file.
- `KEY=VALUE` on the command line comes last, e.g. `training.steps=10`; a number reaches into a list: `data.train.0=…`.
- A component is a name or `{type: name, …options}`. Another `type` replaces it with all its options, the same
  `type` or none merges; on the command line a `type` counts before its options.
- `null` removes an entry of a mapping of names, such as an evaluation set.
- Scalars follow YAML 1.2: `1e-6` is a number; `yes`, `on` and `12:30` are text; a key may stand only once.
- Paths are relative to the working directory, but `extends` and a stage's `config` to the file that says them. `~` is
  the home folder; environment variables are not filled in.
"""


def reference() -> str:
    """The text of docs/config.md, for the components that ship with AMPO."""
    catalog = _own_catalog()
    parts = [INTRODUCTION]
    seen: set[str] = set()
    for name, job in JOBS.items():
        view = SchemaView(job, catalog)
        parts.append(f"\n## job: {name}\n")
        parts += _block(view, view.root, "", name, seen)
    parts.append("\n## Components\n")
    parts += _components(catalog)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


def _own_catalog() -> Catalog:
    catalog = Catalog()
    for entry in discover().catalog.entries():
        if entry.distribution == DISTRIBUTION:
            catalog.add(entry.spec, entry.distribution, entry.version, entry.plugin)
    return catalog


def _block(view: SchemaView, schema: Schema, path: str, job: str, seen: set[str]) -> Iterator[str]:
    """The table of a block, then those of the blocks in it that were not described before."""
    block = view.resolve(schema)
    yield f"{_sentence(block.get('description', ''))}\n"
    yield _header("key", "value", "default", "meaning")
    inner: list[tuple[str, Schema]] = []
    for key, value in block["properties"].items():
        if key == "job":
            continue
        described = view.resolve(value)
        references = list(_references(value))
        if COMPONENT in json.dumps(value):
            expected = _component(view, value)
        elif references:
            several = {"array": " for each item", "object": " for each name"} if "properties" not in described else {}
            expected = f"a block{several.get(described.get('type', ''), '')}{_null(value)}"
        else:
            expected = view.describe(value)
        filled = references and not _null(value) and key not in block.get("required", ())
        default = "" if filled else default_text(value, key, block)
        meaning = value.get("description", described.get("description", ""))
        yield _row(f"`{key}`", _patterns(expected), _default(default), meaning)
        inner += [(f"{path}.{key}".lstrip("."), reference) for reference in references]
    for place, reference in inner:
        if reference["$ref"] not in seen:
            seen.add(reference["$ref"])
            yield f"\n### `{place}` ({job})\n"
            yield from _block(view, reference, place, job, seen)


def _components(catalog: Catalog) -> Iterator[str]:
    plugins = discover()
    for kind in catalog.kinds():
        yield f"\n### {kind}\n"
        for entry in catalog.entries(kind):
            yield f"\n**`{entry.name}`** · {_sentence(entry.summary)}\n"
            if entry.options:
                yield _header("option", "value", "default", "meaning")
                yield from (
                    _row(f"`{row[0]}`", _patterns(row[1]), _default(row[2]), row[3]) for row in options(entry, plugins)
                )


def _references(schema: Any) -> Iterator[Schema]:
    """References to blocks in the schema of one key."""
    if isinstance(schema, dict):
        if "$ref" in schema and COMPONENT not in schema:
            yield {"$ref": schema["$ref"]}
        for word in ("anyOf", "oneOf", "allOf"):
            for part in schema.get(word, ()):
                yield from _references(part)
        yield from _references(schema.get("additionalProperties"))
        yield from _references(schema.get("items"))


def _component(view: SchemaView, schema: Schema) -> str:
    """What may stand where a component may, with a link to those of its kind."""
    if COMPONENT in schema:
        kind = str(schema[COMPONENT])
        return f"{'an' if kind[0] in 'aeiou' else 'a'} [{kind}](#{kind})"
    if "items" in schema:
        return f"a list, each {_component(view, schema['items'])}"
    return (
        " or ".join(_component(view, part) for part in schema["anyOf"]) if "anyOf" in schema else view.describe(schema)
    )


def _null(schema: Schema) -> str:
    return " or null" if {"type": "null"} in schema.get("anyOf", ()) else ""


def _default(text: str) -> str:
    return text if text in ("", "required") else f"`{text}`"


def _patterns(text: str) -> str:
    """Regular expressions as code, or Markdown would read them."""
    return re.sub(r"(text that matches )([^\s,]+)", r"\1`\2`", text)


def _header(*names: str) -> str:
    return f"{_row(*names)}\n{_row(*('---' for _ in names))}"


def _row(*cells: str) -> str:
    escaped = [cell.replace("|", "\\|").replace("\n", " ") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def _sentence(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split())


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
    print(f"wrote {TARGET}")
