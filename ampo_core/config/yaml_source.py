"""YAML in and out: safe, with the line of every key, duplicate keys refused.

Scalars follow YAML 1.2, where PyYAML follows 1.1: `1e-6` is a number, `yes`, `on`, `1:30` and dates are text.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml
from ampo_registry.errors import ConfigError

from ampo_core.config.nodes import MAX_DEPTH, Key, KeyPath, Node, Place, Problem, Scalar

_PREFIX = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MAX_VALUES = 500_000
_FEW = 4
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SURROGATE = re.compile(r"\\[uU](0000)?[dD][89a-fA-F]")
_NUMBER_START = list("-+.0123456789")


class _Resolver:
    """The scalars of YAML 1.2. Only events are read: nothing is ever constructed by tag."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


class _Loader(_Resolver, yaml.SafeLoader):
    """Reads the two halves of a surrogate pair, as JSON writes them, where libyaml refuses each."""


class _FastLoader(_Resolver, yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    """libyaml's, twenty times as fast."""


class _Dumper(yaml.CSafeDumper if yaml.__with_libyaml__ else yaml.SafeDumper):  # type: ignore[misc]
    """Quotes what either YAML version would take for something else than text."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write repeated values out."""
        return True


for _kind, _pattern, _first in (
    ("bool", "true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", _INT.pattern, _NUMBER_START),
    ("float", _FLOAT.pattern, _NUMBER_START),
):
    _Loader.add_implicit_resolver(f"{_PREFIX}{_kind}", re.compile(f"^(?:{_pattern})$"), _first)
    _Dumper.add_implicit_resolver(f"{_PREFIX}{_kind}", re.compile(f"^(?:{_pattern})$"), _first)
_FastLoader.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def dump_yaml(data: Any, *, unicode: bool = True) -> str:
    """`data` (JSON types) as YAML that reads back as the same, without `unicode` in ASCII."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=unicode, width=120))


def parse_yaml(text: str, source: str, lines: bool = True, path: KeyPath = ()) -> tuple[Node | None, list[Problem]]:
    """The document as a tree with places (None if empty) and all that is wrong with it.

    `lines=False` gives every place as `source` alone; `path` is where the document stands in the config. Raises
    ConfigError where the text is no YAML at all, or more than anyone means.
    """
    reader = _Reader(source, lines, path)
    if (found := _UNPRINTABLE.search(text)) is not None:
        line = text.count("\n", 0, found.start())
        raise reader.refuse(line, f"not valid YAML: the character {found[0]!r} is not allowed")
    try:
        return reader.document(text), reader.problems
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise reader.refuse(mark.line if mark else None, f"not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise reader.refuse(None, f"not valid YAML: {error}") from None


class _Reader:
    def __init__(self, source: str, lines: bool, path: KeyPath) -> None:
        self._source, self._lines, self._path = source, lines, list(path)
        self._anchors: dict[str, tuple[Node, int, int]] = {}
        self._count = 0
        self.problems: list[Problem] = []

    def refuse(self, line: int | None, text: str) -> ConfigError:
        """The error that is raised at `line`, from 0."""
        return ConfigError(str(Problem(self._at(line), tuple(self._path), text)))

    def document(self, text: str) -> Node | None:
        """The only document of `text`; None if it is empty."""
        self._pairs = _SURROGATE.search(text) is not None
        self._loader: Any = (_Loader if self._pairs else _FastLoader)(text)
        get, check = self._loader.get_event, self._loader.check_event
        get()
        if check(yaml.StreamEndEvent):
            return None
        get()
        first = get()
        if isinstance(first, yaml.ScalarEvent) and first.implicit[0] and not first.value:
            return None
        node = self._read(first, self._place(first), 1)
        get()
        if not check(yaml.StreamEndEvent):
            raise self.refuse(get().start_mark.line, "not valid YAML: expected one document, found a second one")
        return node

    def _at(self, line: int | None) -> Place:
        return Place(self._source, line + 1 if line is not None and self._lines else None)

    def _place(self, event: Any) -> Place:
        return self._at(event.start_mark.line)

    def _read(self, event: Any, place: Place, depth: int) -> Node:
        """The node that begins with `event`, with all that is in it."""
        line = event.start_mark.line
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise self.refuse(line, f"the alias *{event.anchor} stands before or inside its own anchor")
            anchored, size, height = self._anchors[event.anchor]
            self._grow(size, depth + height - 1, line)
            return Node(anchored.value, place)
        before = self._count
        self._grow(1, depth, line)
        node = Node(self._value(event, place, depth), place)
        if event.anchor is not None:
            self._anchors[event.anchor] = node, self._count - before, _height(node)
        return node

    def _grow(self, size: int, depth: int, line: int) -> None:
        self._count += size
        if self._count > _MAX_VALUES:
            raise self.refuse(line, f"more than {_MAX_VALUES:,} values, with what its aliases (*name) repeat")
        if depth > MAX_DEPTH:
            del self._path[_FEW:]
            raise self.refuse(line, f"nested too deeply: more than {MAX_DEPTH} blocks in each other")

    def _value(self, event: Any, place: Place, depth: int) -> Scalar | dict[str, Node] | list[Node]:
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, place)
        known, read = ("map", self._mapping) if isinstance(event, yaml.MappingStartEvent) else ("seq", self._list)
        if event.tag in (None, "!", f"{_PREFIX}{known}"):
            return read(depth)
        self._problem(place, f"the tag {event.tag} is not allowed")
        read(depth)
        return None

    def _list(self, depth: int) -> list[Node]:
        items: list[Node] = []
        while not isinstance(event := self._loader.get_event(), yaml.SequenceEndEvent):
            items.append(self._inside(len(items), event, self._place(event), depth))
        return items

    def _mapping(self, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        while not isinstance(event := self._loader.get_event(), yaml.MappingEndEvent):
            place, key = self._place(event), self._key(event, depth)
            value = self._inside(key or "", self._loader.get_event(), place, depth)
            if key is None:
                self._problem(place, "a key must be plain text")
            elif key == "<<":
                self._problem(place, "merge keys (<<) are not supported; use extends: FILE.yaml")
            elif key in entries:
                self._problem(place, f"duplicate key {key}; it stands already at {entries[key].place}")
            else:
                entries[key] = value
        return entries

    def _key(self, event: Any, depth: int) -> str | None:
        if isinstance(event, yaml.ScalarEvent):
            return self._text(event.value, self._place(event))
        found = self._read(event, self._place(event), depth).value
        return found if isinstance(found, str) else None

    def _inside(self, key: Key, event: Any, place: Place, depth: int) -> Node:
        self._path.append(key)
        try:
            return self._read(event, place, depth + 1)
        finally:
            self._path[-1:] = []

    def _scalar(self, event: yaml.ScalarEvent, place: Place) -> Scalar:
        text, tag = event.value, event.tag
        if tag in (None, "!"):
            tag = self._loader.resolve(yaml.ScalarNode, text, event.implicit)
        kind = tag.removeprefix(_PREFIX)
        try:
            if kind == "str":
                return self._text(text, place)
            if kind == "null":
                return None
            if kind == "bool":
                return {"true": True, "false": False}[text.lower()]
            if kind == "int":
                return _integer(text)
            if kind == "float":
                return self._float(text, place)
        except (ValueError, KeyError):
            self._problem(place, f"{text[:40]!r} is not a valid {kind}")
            return None
        self._problem(place, f"the tag {tag} is not allowed")
        return None

    def _text(self, text: str, place: Place) -> str:
        if not self._pairs:
            return text
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self._problem(place, "holds half of a surrogate pair (\\ud800 to \\udfff), which is no character")
            return ""

    def _float(self, text: str, place: Place) -> float | None:
        number = float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
        if math.isfinite(number):
            return number
        self._problem(place, f"{text} is not a finite number")
        return None

    def _problem(self, place: Place, text: str) -> None:
        self.problems.append(Problem(place, tuple(self._path), text))


def _integer(text: str) -> int:
    if text.startswith(("0o", "0x")):
        return int(text, 0)
    return int(text.replace("_", ""))


def _height(node: Node) -> int:
    inner = node.value.values() if isinstance(node.value, dict) else node.value if isinstance(node.value, list) else ()
    return 1 + max(map(_height, inner), default=0)
