"""An entry of a data set as JSON text, and back: exactly, with its tuples, sets and keys that are no text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_TAGS = ("$tuple", "$set", "$frozenset", "$mapping")
"""Keys of a mapping that stands for what JSON has not."""


def to_text(entry: Mapping[str, Any]) -> str:
    """The JSON of an entry. Raises TypeError that names the place and the type of what cannot be kept."""
    return json.dumps(_written(dict(entry), "entry"), ensure_ascii=False)


def from_text(text: str) -> dict[str, Any]:
    """The entry. Raises ValueError for a text that is none."""
    found = _read(json.loads(text))
    if not isinstance(found, dict) or not {"question", "answer", "metadata"} <= found.keys():
        raise ValueError("an entry is a mapping with question, answer and metadata")
    return found


def _written(value: Any, place: str) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [_written(item, f"{place}[{i}]") for i, item in enumerate(value)]
    if kind is tuple:
        return {"$tuple": [_written(item, f"{place}[{i}]") for i, item in enumerate(value)]}
    if kind in (set, frozenset):
        items = [_written(item, f"{place}{{}}") for item in value]
        return {f"${kind.__name__}": sorted(items, key=lambda item: json.dumps(item))}
    if kind is dict:
        if all(type(key) is str for key in value) and not value.keys() & {*_TAGS}:
            return {key: _written(item, f"{place}.{key}") for key, item in value.items()}
        pairs = [
            [_written(key, f"a key of {place}"), _written(item, f"{place}[{key!r}]")] for key, item in value.items()
        ]
        return {"$mapping": pairs}
    if kind.__module__ == "numpy" and hasattr(value, "item") and value.ndim == 0:
        return _written(value.item(), place)
    raise TypeError(f"{place} is a {kind.__module__}.{kind.__qualname__}, which a file cannot keep")


def _read(value: Any) -> Any:
    if isinstance(value, list):
        return [_read(item) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), "") if len(value) == 1 else ""
    match tag:
        case "$tuple":
            return tuple(map(_read, value[tag]))
        case "$set":
            return set(map(_read, value[tag]))
        case "$frozenset":
            return frozenset(map(_read, value[tag]))
        case "$mapping":
            return {_read(key): _read(item) for key, item in value[tag]}
    return {key: _read(item) for key, item in value.items()}
