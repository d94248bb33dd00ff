"""`${stages.NAME.out}` and `${runs.NAME.out}`: what a config leaves to the pipeline or suite that runs it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from ampo_core.config.nodes import Key, KeyPath

NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*"
REFERENCE = re.compile(r"\$\{(?:stages|runs)\.(" + NAME + r")\.(out|run)\}")
"""Groups: the name, and `out` (what a stage or run made) or `run` (its folder)."""
ATTEMPT = re.compile(r"\$\{([^}]*)\}?")
"""Anything that looks like a reference; its group is what stands inside."""
THIS = "this"
"""In an evaluation of a suite: the run that is evaluated."""


def is_filled_in(text: str) -> bool:
    """True iff `text` holds a reference, so that it says nothing before a pipeline or suite runs it."""
    return REFERENCE.search(text) is not None


def names_in(value: object) -> set[str]:
    """The names that the texts of a tree of JSON types refer to."""
    return {match[1] for _, text in leaves(value) for match in REFERENCE.finditer(text)}


def leaves(value: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """(path, text) of every text in a tree of JSON types."""
    if isinstance(value, str):
        yield path, value
    items: Sequence[tuple[Key, object]] = ()
    if isinstance(value, Mapping):
        items = [(str(name), child) for name, child in value.items()]
    elif isinstance(value, (list, tuple)):
        items = list(enumerate(value))
    for name, child in items:
        yield from leaves(child, (*path, name))
