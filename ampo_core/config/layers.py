"""From files and overrides to one tree: `extends`, deep merge, `KEY=VALUE`.

A mapping merges into a mapping. A component with another `type` replaces, with the same or none it merges; a plain
name counts as its type. Anything else replaces. A null entry of a mapping of names (evaluation sets) removes it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError

from ampo_core.config.nodes import (
    MAX_DEPTH,
    KeyPath,
    Node,
    Place,
    Problem,
    as_node,
    dotted,
    raise_problems,
    shortened,
    whole_number,
)
from ampo_core.config.schema import Schema, SchemaView
from ampo_core.config.values import written_path
from ampo_core.config.yaml_source import parse_yaml

COMMAND_LINE = "command line"


def read_layers(path: Path) -> list[Node]:
    """The file at `path` and all that it extends, the outermost parent first, without their `extends` keys.

    Raises ConfigError for a file that is missing, unreadable, no mapping, or that extends itself.
    """
    layers: list[Node] = []
    problems: list[Problem] = []
    said_by: Place | None = None
    seen: list[str] = []
    while True:
        node, found = _read(path, said_by)
        real = os.path.realpath(path)
        if real in seen:
            raise ConfigError(f"{said_by}: extends: {path} extends itself, by way of {len(seen)} file(s)")
        seen.append(real)
        problems += found
        entries = dict(node.value) if isinstance(node.value, dict) else {}
        parent = entries.pop("extends", None)
        layers.insert(0, Node(entries, node.place))
        if parent is None:
            break
        if not isinstance(parent.value, str):
            raise_problems([*problems, Problem(parent.place, ("extends",), "expected the path of one file")])
        said_by, path = parent.place, Path(os.path.normpath(path.parent / _extended(parent)))
    raise_problems(problems)
    return layers


def _extended(parent: Node) -> str:
    try:
        return written_path(str(parent.value))
    except ValueError as error:
        raise ConfigError(str(Problem(parent.place, ("extends",), str(error)))) from None


def _read(path: Path, said_by: Place | None) -> tuple[Node, list[Problem]]:
    said = f"{said_by}: extends: " if said_by else ""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{said}{path}: not UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"{said}cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{said}no file can be named {shortened(str(path))}") from None
    node, problems = parse_yaml(text, str(path))
    if node is None:
        raise ConfigError(f"{said}{path}: the file is empty")
    if not isinstance(node.value, dict):
        raise ConfigError(f"{node.place}: expected a mapping with the key job")
    return Node(node.value, Place(str(path), 1)), problems


def override_nodes(overrides: Sequence[str] | Mapping[str, Any], source: str) -> list[tuple[str, Node]]:
    """Overrides from the command line (`KEY=VALUE`, the value YAML) or from a pipeline's stage (a mapping of dotted
    keys) as (key, value). Raises ConfigError."""
    if isinstance(overrides, Mapping):
        place = Place(source)
        return [(str(key), as_node(item, place, _segments(str(key), source))) for key, item in overrides.items()]
    return [_read_override(text, source) for text in overrides]


def _read_override(text: str, source: str) -> tuple[str, Node]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"{source}: {shortened(text)} is not KEY=VALUE (keys are joined with dots)")
    node, problems = parse_yaml(value, source, lines=False, path=_segments(key, source))
    raise_problems(problems)
    return key, node or Node(None, Place(source))


def _segments(key: str, source: str) -> KeyPath:
    """The parts of a dotted key. Raises ConfigError for an empty one, or for more than anyone means."""
    parts = tuple(key.split("."))
    if not all(parts):
        raise ConfigError(f"{source}: {shortened(key)} is not KEY=VALUE: a key has a name before and after each dot")
    if len(parts) > MAX_DEPTH:
        raise ConfigError(f"{source}: {shortened(key)} is nested too deeply: {len(parts)} keys in each other")
    return parts


def repeated(settings: Sequence[tuple[str, Node]]) -> Iterator[str]:
    """A warning for each override that a later one of the same key replaces."""
    for i, (key, node) in enumerate(settings):
        later = [other for name, other in settings[i + 1 :] if name == key]
        if later and later[-1].plain() != node.plain():
            yield f"{node.place}: {key}: stands twice; the last one counts"


def put(
    base: Node | None, path: Sequence[str], value: Node, schema: Schema, view: SchemaView, done: KeyPath = ()
) -> Node:
    """`base` with `value` merged in at `path`; a number reaches into a list. `done` is the path of `base`."""
    if not path:
        return merge(base, value, schema, view) if base is not None else value
    head, rest, here = path[0], path[1:], (*done, path[0])
    if base is not None and isinstance(base.value, list):
        index = whole_number(head)
        if index is None or index >= len(base.value):
            text = f"{dotted(done)} is a list of {len(base.value)} item(s), counted from 0"
            raise ConfigError(f"{value.place}: {dotted((*here, *rest))}: found item {head}, but {text}")
        items = list(base.value)
        inner = view.child(schema, base.value, index) or {}
        items[index] = put(items[index], rest, value, inner, view, here) if rest else value
        return Node(items, base.place)
    component = view.component(schema)
    if base is not None and component is not None:
        base = _named(base, component[1], view.words(schema))
    if base is None or not isinstance(base.value, dict):
        base = Node({}, value.place)
    kind = base.child("type")
    if component is not None and path == ["type"] and kind is not None and kind.value != value.value:
        return Node({"type": value}, value.place)
    inner = view.child(schema, {"type": kind.value} if kind is not None else {}, head) or {}
    return Node({**dict(base.entries()), head: put(base.child(head), rest, value, inner, view, here)}, base.place)


def merge(base: Node, over: Node, schema: Schema, view: SchemaView) -> Node:
    """`over` on top of `base`; places stay with what they belong to. `schema` is {} where nothing is known."""
    component, written = view.component(schema), over
    if component is not None:
        words = view.words(schema)
        base, over = (
            _named(base, component[1], words),
            over if isinstance(over.value, dict) else _named(over, None, words),
        )
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return written
    before, after = base.child("type"), over.child("type")
    if before is not None and after is not None and before.value != after.value:
        return written
    merged = dict(base.value)
    name = after or before
    block = {"type": name.value} if name is not None else {}
    for key, node in over.value.items():
        inner = view.child(schema, block, key) or {}
        merged[key] = merge(merged[key], node, inner, view) if key in merged else node
    return Node(merged, base.place)


def _named(node: Node, default: str | None, words: Sequence[str] = ()) -> Node:
    """A component in its long form; one of `words`, which is none, as it is."""
    if isinstance(node.value, str) and node.value not in words:
        return Node({"type": node}, node.place)
    if isinstance(node.value, dict) and default is not None and "type" not in node.value:
        return Node({"type": Node(default, node.place), **node.value}, node.place)
    return node


def complete(node: Node, schema: Schema, view: SchemaView) -> Node:
    """The merged tree with removed entries gone and the default `type` in components that name none."""
    if not schema:
        return node
    component = view.component(schema)
    if component is not None and isinstance(node.value, dict):
        node = _named(node, component[1])
    kind = node.child("type")
    around: Any = [] if isinstance(node.value, list) else {"type": kind.plain()} if kind is not None else {}

    def inside(child: Node, key: str | int) -> Node:
        return complete(child, view.child(schema, around, key) or {}, view)

    if isinstance(node.value, list):
        return Node([inside(item, i) for i, item in enumerate(node.value)], node.place)
    if not isinstance(node.value, dict):
        return node
    dropped = (None,) if view.drops_null(schema, around) else ()
    kept = {key: inside(child, key) for key, child in node.value.items() if child.value not in dropped}
    return Node(kept, node.place)
