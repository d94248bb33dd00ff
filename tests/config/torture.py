"""Makes wrong configs from the schema of every job: at each place that it knows, and at each depth."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any

import yaml
from ampo_registry.catalog import Catalog
from jsonschema import Draft202012Validator

from ampo_core.config.jobs import JOBS
from ampo_core.config.schema import Schema, SchemaView

MARK = "marked-place"
BASES: dict[str, dict[str, Any]] = {
    "train": {"model": {"path": "model"}, "data": {"train": ["train.parquet"]}},
    "sft": {"model": {"path": "model"}, "data": {"train": ["train.parquet"]}},
    "evaluate": {"models": {"start": {"path": "model"}}, "evaluation": {"sets": {"a": {"path": "train.parquet"}}}},
    "prepare": {"task": "labelled_arithmetic"},
    "pool": {
        "questions": ["train.parquet"],
        "student": {"path": "model"},
        "teachers": [{"name": "t", "recorded": "t"}],
    },
    "pipeline": {"stages": [{"name": "a", "config": "base.yaml"}]},
    "suite": {"runs": {"a": "base.yaml"}},
}
VALUES: tuple[Any, ...] = (
    *(True, False, 0, 1, -1, 1.5, -0.5, 1e300, 10**30, 2**64, None, "text", "", "1", "true", "0.5"),
    *([], {}, [1], [None], [[]], ["x", "x"], {"a": 1}, {"type": "nope"}, {"type": 1}, {"type": None}, [True, True]),
)


@dataclass(frozen=True)
class Component:
    """A step of a path: from here on the options of the component `name`."""

    name: str


Step = str | int | Component


@dataclass(frozen=True)
class Place:
    """A place that the schema of `job` knows. `named`: its key is a name that the user chooses."""

    job: str
    steps: tuple[Step, ...]
    schema: Schema
    view: SchemaView
    named: bool

    @property
    def key(self) -> str:
        """As a person writes it."""
        return ".".join(str(step) for step in self.steps if not isinstance(step, Component))

    def admits(self, value: Any) -> bool:
        """What the JSON Schema says of `value`, by a validator that shares nothing with the loader.

        A mapping without `type` is the default component, which no schema says."""
        component = self.view.component(self.schema)
        if value == {} and component is not None and component[1] is not None:
            return True
        schema = {**self.schema, "$defs": self.view._definitions}
        return bool(Draft202012Validator(schema).is_valid(value))

    def text(self, value: Any) -> tuple[str, int]:
        """A config with the JSON text of `value` at this place, and its line."""
        return _marked(_with(BASES[self.job], self.job, self.steps, MARK), json.dumps(value))

    def misspelt(self, key: str) -> tuple[str, int]:
        """A config whose last key is `key` instead, and its line."""
        return _marked(_with(BASES[self.job], self.job, (*self.steps[:-1], MARK), 1), key)


def places(catalog: Catalog) -> Iterator[Place]:
    """All places of all jobs; a block that several jobs share, at its first."""
    seen: set[str] = set()
    for name, job in JOBS.items():
        view = SchemaView(job, catalog)
        yield from _places(view, view.root, name, (), seen)


def _places(view: SchemaView, schema: Schema, job: str, steps: tuple[Step, ...], seen: set[str]) -> Iterator[Place]:
    for leaf in view.variants(schema):
        own = leaf.get("properties", {})
        kind = own.get("type", {}).get("const")
        told = json.dumps([leaf.get("title"), kind, sorted(own)])
        if own and (told in seen or seen.add(told)):  # type: ignore[func-returns-value]
            continue
        here = (*steps, Component(kind)) if view.component(schema) and kind else steps
        inner: list[tuple[Step, Schema, bool]] = [(key, item, False) for key, item in own.items() if key != "job"]
        if isinstance(leaf.get("additionalProperties"), dict) and leaf["additionalProperties"]:
            inner.append(("a", leaf["additionalProperties"], True))
        inner += [(i, item, False) for i, item in enumerate(leaf.get("prefixItems", ()))]
        inner += [(0, leaf["items"], False)] if leaf.get("items") else []
        for step, item, named in inner:
            yield Place(job, (*here, step), item, view, named)
            yield from _places(view, item, job, (*here, step), seen)


def wrong_values(place: Place, rng: Random, count: int) -> Iterator[Any]:
    """`count` values that the schema refuses, and those just beyond its bounds."""
    yield from (value for value in _beyond(place) if not place.admits(value))
    values = [value for value in VALUES if not (value is None and place.named) and not place.admits(value)]
    yield from islice(rng.sample(values, len(values)), count)


def _beyond(place: Place) -> Iterator[Any]:
    for leaf in place.view.variants(place.schema):
        whole = leaf.get("type") == "integer"
        for word, step in (("minimum", -1), ("maximum", 1)):
            if word in leaf:
                yield int(leaf[word]) + step if whole else leaf[word] + step * 1e-3
        yield from (leaf[word] for word in ("exclusiveMinimum", "exclusiveMaximum") if word in leaf)
        if "maxLength" in leaf:
            yield "a" * (leaf["maxLength"] + 1)


def typos(key: str, rng: Random) -> list[str]:
    """A letter too many, one too few, another case."""
    at = rng.randrange(len(key))
    return [f"{key[:at]}{key[at]}{key[at:]}", key[:at] + key[at + 1 :] or "x", key.upper()]


def _with(base: dict[str, Any], job: str, steps: tuple[Step, ...], value: Any) -> dict[str, Any]:
    config: Any = {"job": job, **copy.deepcopy(base)}
    node, path = config, list(steps)
    while path:
        step = path.pop(0)
        after = path[0] if path else None
        component = path.pop(0).name if isinstance(after, Component) else None  # type: ignore[union-attr]
        fresh: Any = [None] * (path[0] + 1) if path and isinstance(path[0], int) else {}
        if component is not None:
            fresh = {"type": component}
        last = not path
        if isinstance(node, dict):
            found = node.get(step)
            inner = found if isinstance(found, type(fresh)) and component is None else fresh
            node.pop(MARK if last else "", None)
            node[step] = value if last else inner
        else:
            inner = node[step] if isinstance(node[step], type(fresh)) and node[step] and component is None else fresh
            node[step] = value if last else inner
        node = None if last else node[step]
    return {key: item for key, item in config.items() if item is not None}


def _marked(config: dict[str, Any], text: str) -> tuple[str, int]:
    written = yaml.safe_dump(config, sort_keys=False, width=10**6)
    line = next(i for i, row in enumerate(written.splitlines(), start=1) if MARK in row)
    return written.replace(MARK, text), line
