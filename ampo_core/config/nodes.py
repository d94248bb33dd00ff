"""A config as it was written: values that remember which file and line they came from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ampo_registry.errors import ConfigError
from ampo_registry.text import nearest as nearest_match

Key = str | int
KeyPath = tuple[Key, ...]
Scalar = None | bool | int | float | str
MAX_DEPTH = 100
"""So many blocks may stand in each other."""
_SHOWN, _DIGITS = 60, 18


@dataclass(frozen=True, slots=True)
class Place:
    """A file and line (from 1), or a source without lines such as the command line."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True)
class Node:
    """A scalar, a mapping or a list, and the place of its key (of itself for a list's item)."""

    value: Scalar | dict[str, Node] | list[Node]
    place: Place

    def plain(self) -> Any:
        """The value in JSON types."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def child(self, key: Key) -> Node | None:
        """The entry `key`, or None."""
        if isinstance(self.value, dict):
            return self.value.get(str(key))
        if isinstance(self.value, list) and isinstance(key, int) and 0 <= key < len(self.value):
            return self.value[key]
        return None

    def entries(self) -> Iterable[tuple[str, Node]]:
        """Key and value of each entry of a mapping."""
        return self.value.items() if isinstance(self.value, dict) else ()

    def place_of(self, path: KeyPath) -> Place:
        """The place of `path`, or of the innermost block around it that was written."""
        node = self
        for key in path:
            inner = node.child(key)
            if inner is None:
                break
            node = inner
        return node.place

    def problem(self, path: KeyPath, text: str) -> Problem:
        """A problem at `path`, which says so if nobody wrote that key."""
        node: Node | None = self
        for key in path:
            node = node.child(key) if node is not None else None
        return Problem(self.place_of(path), path, text if node is not None else f"{text} (the default)")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong at a key: where, which key, what."""

    place: Place
    path: KeyPath
    text: str

    def __str__(self) -> str:
        key = dotted(self.path)
        return f"{self.place}: {key}: {self.text}" if key else f"{self.place}: {self.text}"


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule between keys that a config breaks, or a warning, at the key that is to be changed."""

    path: KeyPath
    text: str
    severity: Literal["error", "warning"] = "error"


def dotted(path: KeyPath) -> str:
    """`path` as a person writes it: a.b.0.c"""
    return ".".join(str(key) for key in path)


def value_at(value: Any, path: KeyPath) -> Any:
    """The value at `path` inside a tree of JSON types, None where there is no such place."""
    for key in path:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            return None
    return value


def as_node(value: Any, place: Place, path: KeyPath = ()) -> Node:
    """`value` in JSON types, all of it said at `place`. Raises ConfigError for what YAML could not say either."""
    if len(path) > 2 * MAX_DEPTH:
        raise ConfigError(f"{place}: {path[0]}: nested too deeply: more than {MAX_DEPTH} blocks in each other")
    if isinstance(value, Mapping):
        return Node({str(key): as_node(item, place, (*path, str(key))) for key, item in value.items()}, place)
    if isinstance(value, (list, tuple)):
        return Node([as_node(item, place, (*path, i)) for i, item in enumerate(value)], place)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(str(Problem(place, path, f"{value} is not a finite number")))
    if value is None or isinstance(value, (bool, int, float, str)):
        return Node(value, place)
    raise ConfigError(str(Problem(place, path, f"found {shortened(value)}, expected what YAML can say")))


def whole_number(text: str) -> int | None:
    """The number that `text` writes in plain digits, or None."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS else None


def shortened(value: object) -> str:
    """`value` as errors show it, in a few words if it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def raise_problems(problems: Sequence[Problem]) -> None:
    """Raise one ConfigError that lists `problems` by file and line; return if there are none."""
    if not problems:
        return
    ordered = sorted(dict.fromkeys(problems), key=lambda problem: (problem.place.source, problem.place.line or 0))
    raise ConfigError("\n".join(str(problem) for problem in ordered))


def nearest(found: str, allowed: Iterable[str]) -> str:
    """The part of a message that says what may stand there: nearest match first, then all."""
    names = list(allowed)
    match = nearest_match(found, names)
    hint = f"; did you mean {match}?" if match else ""
    return f"{hint} (allowed: {', '.join(names)})" if names else f"{hint} (nothing is allowed here)"
