"""From files and overrides to one tree: `extends`, deep merge, `KEY=VALUE`.

A mapping merges into a mapping. A component with another `type` replaces, with the same or none it merges; a plain
name counts as its type. Anything else replaces. A null entry of a mapping of names (evaluation sets) removes it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError

from ampo_core.config.nodes import Node, Place, Problem, raise_problems
from ampo_core.config.schema import Schema, SchemaView
from ampo_core.config.yaml_source import dump_yaml, parse_yaml

COMMAND_LINE = "command line"


def read_layers(path: Path) -> list[Node]:
    """The file at `path` and all that it extends, the outermost parent first, without their `extends` keys.

    Raises ConfigError for a file that is missing, unreadable, no mapping, or that extends itself.
    """
    layers: list[Node] = []
    problems: list[Problem] = []
    said_by: Place | None = None
    seen: list[Path] = []
    while True:
        if path.resolve() in seen:
            raise ConfigError(f"{said_by}: extends: {path} extends itself, by way of {len(seen)} file(s)")
        seen.append(path.resolve())
        node, found = _read(path, said_by)
        problems += found
        entries = dict(node.value) if isinstance(node.value, dict) else {}
        parent = entries.pop("extends", None)
        layers.insert(0, Node(entries, node.place))
        if parent is None:
            break
        if not isinstance(parent.value, str):
            raise_problems([*problems, Problem(parent.place, ("extends",), "expected the path of one file")])
        said_by, path = parent.place, Path(os.path.normpath(path.parent / str(parent.value)))
    raise_problems(problems)
    return layers


def _read(path: Path, said_by: Place | None) -> tuple[Node, list[Problem]]:
    said = f"{said_by}: extends: " if said_by else ""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{said}{path}: not UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"{said}cannot read {path}: {error.strerror}") from None
    node, problems = parse_yaml(text, str(path))
    if node is None:
        raise ConfigError(f"{said}{path}: the file is empty")
    if not isinstance(node.value, dict):
        raise ConfigError(f"{node.place}: expected a mapping with the key job")
    return Node(node.value, Place(str(path), 1)), problems


def read_override(text: str) -> tuple[str, Node]:
    """`KEY=VALUE` -> (KEY, value); VALUE is YAML. Raises ConfigError."""
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"{COMMAND_LINE}: {text!r} is not KEY=VALUE (keys are joined with dots)")
    return key, _value(value, f"{COMMAND_LINE}: {key}")


def override_nodes(overrides: Sequence[str] | Mapping[str, Any], source: str) -> list[tuple[str, Node]]:
    """Overrides from the command line (texts) or from a pipeline's stage (a mapping of dotted keys)."""
    if isinstance(overrides, Mapping):
        return [(str(key), _relocate(_value(dump_yaml(value), source), source)) for key, value in overrides.items()]
    return [(key, _relocate(node, source)) for key, node in map(read_override, overrides)]


def _value(text: str, source: str) -> Node:
    node, problems = parse_yaml(text, source, lines=False)
    raise_problems(problems)
    return node or Node(None, Place(source))


def _relocate(node: Node, source: str) -> Node:
    if isinstance(node.value, dict):
        return Node({key: _relocate(child, source) for key, child in node.value.items()}, Place(source))
    if isinstance(node.value, list):
        return Node([_relocate(child, source) for child in node.value], Place(source))
    return Node(node.value, Place(source))


def nest(base: Node | None, key: str, value: Node) -> Node:
    """The layer that sets the dotted `key` of `base` to `value`; a number reaches into a list."""
    head, _, rest = key.partition(".")
    if base is not None and isinstance(base.value, list) and head.isdecimal():
        if int(head) >= len(base.value):
            raise ConfigError(f"{value.place}: {key}: the list has {len(base.value)} item(s), counted from 0")
        items = list(base.value)
        item = items[int(head)]
        items[int(head)] = _laid_over(item, nest(_named(item, None), rest, value)) if rest else value
        return Node(items, value.place)
    inner = nest(base.child(head) if base is not None else None, rest, value) if rest else value
    return Node({head: inner}, value.place)


def _laid_over(base: Node, over: Node) -> Node:
    """`over` on top of an item of a list, whose replacement is no merge of its own."""
    base = _named(base, None)
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    kept = {key: _laid_over(node, over.value[key]) if key in over.value else node for key, node in base.value.items()}
    return Node({**over.value, **kept}, base.place)


def merge(base: Node, over: Node, schema: Schema, view: SchemaView) -> Node:
    """`over` on top of `base`; places stay with what they belong to. `schema` is {} where nothing is known."""
    component = view.component(schema)
    if component is not None:
        base, over = _named(base, component[1]), over if isinstance(over.value, dict) else _named(over, None)
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    before, after = base.child("type"), over.child("type")
    if before is not None and after is not None and before.value != after.value:
        return over
    merged = dict(base.value)
    name = after or before
    block = {"type": name.value} if name is not None else {}
    for key, node in over.value.items():
        inner = view.child(schema, block, key) or {}
        merged[key] = merge(merged[key], node, inner, view) if key in merged else node
    return Node(merged, base.place)


def _named(node: Node, default: str | None) -> Node:
    """A component in its long form."""
    if isinstance(node.value, str):
        return Node({"type": node}, node.place)
    if isinstance(node.value, dict) and default is not None and "type" not in node.value:
        return Node({"type": Node(default, node.place), **node.value}, node.place)
    return node


def complete(node: Node, schema: Schema, view: SchemaView) -> Node:
    """The merged tree with removed entries gone and the default `type` in components that name none."""
    component = view.component(schema)
    if component is not None and isinstance(node.value, dict):
        node = _named(node, component[1])
    plain = node.plain()

    def inside(child: Node, key: str | int) -> Node:
        return complete(child, view.child(schema, plain, key) or {}, view)

    if isinstance(node.value, list):
        return Node([inside(item, i) for i, item in enumerate(node.value)], node.place)
    if not isinstance(node.value, dict):
        return node
    dropped = (None,) if view.drops_null(schema, plain) else ()
    kept = {key: inside(child, key) for key, child in node.value.items() if child.value not in dropped}
    return Node(kept, node.place)
