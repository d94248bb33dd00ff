"""The package's data sets, by name and options."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any

from ampo_registry import PluginError
from ampo_registry.faults import describe
from ampo_registry.text import nearest

PACKAGE = "reasoning_gym"
REFUSED = {"game_of_life_halting": "its scorer accepts whatever is not empty as the answer"}
"""Data sets that nothing can be learned from."""
UNSTEADY = (
    *("codeio", "isomorphic_strings", "knight_swap", "polynomial_multiplication"),
    *("ransom_note", "word_ladder"),
)
"""Data sets that go through Python's sets as they make questions, whose order is another one in each process."""
OURS = ("seed", "size")
"""Options of every data set that the task sets."""


def unavailable() -> str | None:
    """A reason if the package is missing, else None."""
    if importlib.util.find_spec(PACKAGE) is None:
        return "the package reasoning_gym is not installed: pip install 'ampo-rl[gym]'"
    return None


def fault_of(name: str, options: Mapping[str, Any]) -> str | None:
    """Why there is no data set `name` with these options, or None."""
    from reasoning_gym.factory import DATASETS

    known = sorted(set(DATASETS) - {"composite"})
    if name not in known:
        near = nearest(name, known)
        hint = f"; did you mean {near!r}?" if near else ""
        return f"there is no data set {name!r}{hint}; Reasoning Gym has {', '.join(known)}"
    if name in REFUSED:
        return f"{name} is left out: {REFUSED[name]}"
    allowed = [field.name for field in fields(DATASETS[name][1]) if field.name not in OURS]
    if mine := [option for option in options if option in OURS]:
        return f"{name}: {mine[0]} is set by the task"
    if unknown := [option for option in options if option not in allowed]:
        near = nearest(unknown[0], allowed)
        hint = f"; did you mean {near!r}?" if near else ""
        return f"{name} has no option {unknown[0]}{hint}; its options are {', '.join(allowed) or 'none'}"
    try:
        made(name, options, seed=0, size=1)
    except Exception as error:
        return f"{name} refuses its options: {describe(error)}"
    return None


def made(name: str, options: Mapping[str, Any], *, seed: int, size: int) -> Any:
    """A data set: `size` entries, each a function of the seed and its place."""
    from reasoning_gym.factory import create_dataset

    return create_dataset(name, **options, seed=seed, size=size)


@lru_cache(maxsize=256)
def scorer(name: str, options: str) -> Any:
    """The data set that scores the answers to entries of `name`, made with the same options, given as JSON text. Raises
    PluginError where there is none: both may come from a file of anybody's."""
    try:
        found = json.loads(options)
    except ValueError as error:
        raise PluginError(f"extra_info.options of {name} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise PluginError(f"extra_info.options of {name} must be a mapping; found {options:.40}")
    if fault := fault_of(name, found):
        raise PluginError(f"extra_info.dataset or options: {fault}")
    return made(name, found, seed=0, size=1)
