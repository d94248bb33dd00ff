"""YAML in and out: safe, with the line of every key, duplicate keys refused.

Scalars follow YAML 1.2, where PyYAML follows 1.1: `1e-6` is a number, `yes`, `on`, `1:30` and dates are text.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml
from ampo_registry.errors import ConfigError

from ampo_core.config.nodes import Node, Place, Problem, Scalar

_PREFIX = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MAX_NODES = 100_000


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2. Only used to compose: nothing is ever constructed by tag."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


_NUMBER_START = list("-+.0123456789")
_Loader.add_implicit_resolver(f"{_PREFIX}bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(f"{_PREFIX}null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(f"{_PREFIX}int", re.compile(rf"^(?:{_INT.pattern})$"), _NUMBER_START)
_Loader.add_implicit_resolver(f"{_PREFIX}float", re.compile(rf"^(?:{_FLOAT.pattern})$"), _NUMBER_START)


class _Dumper(yaml.SafeDumper):
    """Quotes what either YAML version would take for something else than text."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write repeated values out."""
        return True


_Dumper.add_implicit_resolver(f"{_PREFIX}int", re.compile(rf"^(?:{_INT.pattern})$"), _NUMBER_START)
_Dumper.add_implicit_resolver(f"{_PREFIX}float", re.compile(rf"^(?:{_FLOAT.pattern})$"), _NUMBER_START)


def dump_yaml(data: Any) -> str:
    """`data` (JSON types) as YAML that reads back as the same."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def parse_yaml(text: str, source: str, lines: bool = True) -> tuple[Node | None, list[Problem]]:
    """The document as a tree with places (None if empty) and all that is wrong with it.

    `lines=False` gives every place as `source` alone. Raises ConfigError where the text is no YAML at all.
    """
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(source, mark.line + 1 if mark and lines else None)
        raise ConfigError(f"{place}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not valid YAML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply") from None
    if root is None:
        return None, []
    reader = _Reader(source, lines)
    return reader.read(root, reader.place(root)), reader.problems


class _Reader:
    def __init__(self, source: str, lines: bool) -> None:
        self.source, self.lines = source, lines
        self.problems: list[Problem] = []
        self._open: set[int] = set()
        self._count = 0

    def place(self, node: yaml.Node) -> Place:
        return Place(self.source, node.start_mark.line + 1 if self.lines else None)

    def read(self, node: yaml.Node, place: Place) -> Node:
        self._count += 1
        if id(node) in self._open or self._count > _MAX_NODES:
            raise ConfigError(f"{place}: an alias (*name) stands inside its own anchor, or the file expands endlessly")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == f"{_PREFIX}map":
                return Node(self._mapping(node), place)
            if isinstance(node, yaml.SequenceNode) and node.tag == f"{_PREFIX}seq":
                return Node([self.read(item, self.place(item)) for item in node.value], place)
            if isinstance(node, yaml.ScalarNode):
                return Node(self._scalar(node, place), place)
            self._problem(place, f"the tag {node.tag} is not allowed")
            return Node(None, place)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        for key, value in node.value:
            place = self.place(key)
            if not isinstance(key, yaml.ScalarNode):
                self._problem(place, "a key must be plain text")
            elif key.value == "<<":
                self._problem(place, "merge keys (<<) are not supported; use extends: FILE.yaml")
            elif key.value in entries:
                self._problem(place, f"duplicate key {key.value}; it stands already at {entries[key.value].place}")
            else:
                entries[key.value] = self.read(value, place)
        return entries

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Scalar:
        kind, text = node.tag.removeprefix(_PREFIX), node.value
        try:
            if kind == "str":
                return str(text)
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
        self._problem(place, f"the tag {node.tag} is not allowed")
        return None

    def _float(self, text: str, place: Place) -> float | None:
        number = float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
        if math.isfinite(number):
            return number
        self._problem(place, f"{text} is not a finite number")
        return None

    def _problem(self, place: Place, text: str) -> None:
        self.problems.append(Problem(place, (), text))


def _integer(text: str) -> int:
    if text.startswith(("0o", "0x")):
        return int(text, 0)
    return int(text.replace("_", ""))
