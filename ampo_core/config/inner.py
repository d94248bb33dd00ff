"""The configs that a pipeline or a suite names: where they are, and what they refer to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ampo_core.config.nodes import KeyPath, Node, nearest
from ampo_core.config.references import ATTEMPT, REFERENCE, leaves


@dataclass(frozen=True, slots=True)
class Inner:
    """A config that another one names at `path`. `known` are the names that it may refer to."""

    path: KeyPath
    config: str
    overrides: Mapping[str, Any]
    known: tuple[str, ...]


def bad_references(known: Sequence[str], value: object) -> Iterator[str]:
    """What is wrong with each `${...}` in the texts of `value`: only what has run before is known."""
    for _, text in leaves(value):
        for attempt in ATTEMPT.finditer(text):
            inside = attempt[1]
            found = REFERENCE.fullmatch(f"${{{inside}}}")
            if found is None:
                yield (
                    f"${{{inside}}} is not of the form ${{stages.NAME.out}} (its output) or .run (its folder); "
                    "in a suite also ${runs.NAME.out}"
                )
            elif found[1] not in known:
                yield f"${{{inside}}}: no earlier {_kind(inside)} is named {found[1]!r}{nearest(found[1], known)}"


def _kind(reference: str) -> str:
    return "run" if reference.startswith("runs.") else "stage"


def with_absolute_paths(root: Node, path: Path) -> Node:
    """`root`, read from `path`, with the configs it names as absolute paths: each is relative to the file that says
    it."""
    entries = dict(root.value) if isinstance(root.value, dict) else {}
    stages = entries.get("stages")
    if stages is not None and isinstance(stages.value, list):
        entries["stages"] = Node([_absolute(stage, "config", path) for stage in stages.value], stages.place)
    for block in ("runs", "evaluations"):
        found = entries.get(block)
        if found is None or not isinstance(found.value, dict):
            continue
        items = {name: _absolute(item, "config", path) for name, item in found.value.items()}
        block_node = Node(items, found.place)
        for name in items:
            block_node = _absolute(block_node, name, path)
        entries[block] = block_node
    return Node(entries, root.place)


def _absolute(node: Node, key: str, path: Path) -> Node:
    config = node.child(key)
    if not isinstance(node.value, dict) or config is None or not isinstance(config.value, str) or not config.value:
        return node
    folder = Path(config.place.source).parent if config.place.line else path.parent
    target = Path(os.path.abspath(folder / os.path.expanduser(config.value))).as_posix()
    return Node({**node.value, key: Node(target, config.place)}, node.place)
