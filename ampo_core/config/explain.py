"""pydantic's errors as problems of the file: line, key, found, allowed, nearest match."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ampo_registry.catalog import BrokenPlugin, ComponentError
from ampo_registry.components import COMPONENT
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ampo_core.config.moved import elsewhere
from ampo_core.config.nodes import KeyPath, Node, Place, Problem, dotted, nearest, value_at
from ampo_core.config.schema import Schema, SchemaView

_OWN_WORDS = ("value_error", "assertion_error")


def explain(error: ValidationError, root: Node, view: SchemaView, broken: Sequence[BrokenPlugin]) -> list[Problem]:
    """One problem for each key that is wrong."""
    plain = root.plain()
    details = [(_key_path(item, plain, view), item) for item in error.errors(include_url=False)]
    problems: dict[KeyPath, Problem] = {}
    for path, item in details:
        inside = any(len(other) > len(path) and other[: len(path)] == path for other, _ in details)
        if inside and isinstance(value_at(plain, path), (dict, list)) and item["type"] not in _OWN_WORDS:
            continue  # one alternative of a union refused a mapping that another one took and found wrong inside
        if path not in problems or item["type"] in _OWN_WORDS:
            text = _text(item, path, plain, view, broken)
            problems[path] = Problem(root.place_of(path), _with_missing(path, item), text)
    return list(problems.values())


def _key_path(item: ErrorDetails, plain: Any, view: SchemaView) -> KeyPath:
    """The error's location without the names of union alternatives that pydantic puts into it."""
    path: KeyPath = ()
    own = item.get("ctx", {}).get("error")
    for key in (*item["loc"], *(own.location if isinstance(own, ComponentError) else ())):
        around = value_at(plain, path)
        written = key in around if isinstance(around, dict) else isinstance(around, list) and key in range(len(around))
        if written or view.at(plain, (*path, key)) is not None:
            path = (*path, key)
    return path


def _with_missing(path: KeyPath, item: ErrorDetails) -> KeyPath:
    """`path`, down to the option that is missing where a component is named without options."""
    option = item["loc"][-1] if item["type"] == "missing" else None
    return path if option is None or path[-1:] == (option,) else (*path, option)


def _text(item: ErrorDetails, path: KeyPath, plain: Any, view: SchemaView, broken: Sequence[BrokenPlugin]) -> str:
    found = value_at(plain, path)
    if item["type"] == "extra_forbidden":
        return _unknown_key(path, plain, view)
    schema = view.at(plain, path)
    own = item.get("ctx", {}).get("error")
    if isinstance(own, ComponentError):
        return _component(own, path, plain, view, broken)
    if item["type"] in _OWN_WORDS:
        return f"{own if own is not None else item['msg']} (found {_show(found)})"
    if schema is None:
        return f"{item['msg']} (found {_show(found)})"
    if item["type"] == "missing" and isinstance(found, str) and found in view.names(schema):
        option = item["loc"][-1]
        return f"missing; {found} needs the option {option}: write {{type: {found}, {option}: ...}}"
    if item["type"] == "missing":
        return f"missing; expected {view.describe(schema)}"
    hint = nearest(found, view.choices(schema)).partition(" (")[0] if isinstance(found, str) else ""
    return f"found {_show(found)}, expected {view.describe(schema)}{hint}"


def misread(root: Node, read: Any, view: SchemaView) -> list[Problem]:
    """What was taken for something else than what was written: true for a 1, 1.0 for a 1, a key 02 for a 2."""
    plain = root.plain()
    return [root.problem(path, _misread_text(path, is_key, plain, view)) for path, is_key in _misread(plain, read, ())]


def _misread_text(path: KeyPath, is_key: bool, plain: Any, view: SchemaView) -> str:
    if is_key:
        return f"found the key {path[-1]}, expected a whole number as it is usually written"
    schema = view.at(plain, path)
    return f"found {_show(value_at(plain, path))}, expected {view.describe(schema) if schema else 'a whole number'}"


def _misread(written: Any, read: Any, path: KeyPath) -> Iterator[tuple[KeyPath, bool]]:
    """(path, whether its key was misread, not its value)."""
    if isinstance(written, dict) and isinstance(read, dict):
        for key, value in written.items():
            if key in read:
                yield from _misread(value, read[key], (*path, key))
            elif any(_number(key) == _number(name) is not None for name in read):
                yield (*path, key), True
    elif isinstance(written, list) and isinstance(read, list):
        for i, (value, kept) in enumerate(zip(written, read, strict=False)):
            yield from _misread(value, kept, (*path, i))
    elif isinstance(written, bool | float) and type(read) is int:
        yield path, False


def _number(key: object) -> float | None:
    try:
        return float(str(key))
    except ValueError:
        return None


def as_written(problem: Problem, keys: Iterable[str], source: str) -> Problem:
    """`problem`, if an override of `source` brought it, with the key as it stands there."""
    if problem.place != Place(source):
        return problem
    for key in keys:
        path = tuple(key.split("."))
        if len(path) > len(problem.path) and path[: len(problem.path)] == tuple(map(str, problem.path)):
            return Problem(problem.place, path, f"{dotted(problem.path)}: {problem.text}")
    return problem


def _unknown_key(path: KeyPath, plain: Any, view: SchemaView) -> str:
    key = str(path[-1])
    if path == ("extends",):
        return "only a file can extend another one"
    if (said := elsewhere(path)) is not None:
        return said
    around = value_at(plain, path[:-1])
    schema = view.at(plain, path[:-1])
    block = view.block(schema, around) if schema is not None else None
    allowed = [*(block or {}).get("properties", {}), *(["extends"] if len(path) == 1 else [])]
    meant = [dotted((name, key)) for name in _blocks_with(key, view)] if len(path) == 1 else []
    if meant:
        return f"no such key here; did you mean {' or '.join(meant)}?"
    return f"no such key{nearest(key, allowed)}"


def _blocks_with(key: str, view: SchemaView) -> list[str]:
    """The top-level blocks that have an option `key`."""
    blocks: dict[str, Schema] = view.resolve(view.root).get("properties", {})
    return [
        name
        for name, schema in blocks.items()
        if any(key in leaf.get("properties", {}) and key != "type" for leaf in view.variants(schema))
    ]


def _component(
    error: ComponentError, path: KeyPath, plain: Any, view: SchemaView, broken: Sequence[BrokenPlugin]
) -> str:
    """An unknown or malformed component, with the broken plugins that may hide it."""
    place = path[:-1] if error.location else path
    schema = view.at(plain, place)
    name = value_at(plain, path)
    if schema is None or not isinstance(name, str) or view.component(schema) is None:
        return str(error)  # of something else that the catalog has, a function say
    kind = (view.component(schema) or ("component", None))[0]
    if "claimed by" in str(error) or name in view.names(schema):  # its own words: the name is known
        return str(error)
    if COMPONENT not in view.resolve(schema) and not error.location:
        hint = nearest(name, [*view.choices(schema), *view.names(schema)]).partition(" (")[0]
        return f"found {_show(name)}, expected {view.describe(schema)}{hint}"
    lines = [f"no {kind.replace('_', ' ')} is named {name!r}{nearest(name, view.names(schema))}"]
    if broken:
        lines.append("    these plugins could not be loaded, so their names are not known:")
        lines += [f"      {plugin}" for plugin in broken]
    return "\n".join(lines)


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
