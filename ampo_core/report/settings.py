"""Settings of a config in words: numbers, schedules in their place, terms of the objective."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]
NUMBERS = (
    "guidance.threshold",
    "guidance.replacements",
    "objective.entropy_coefficient",
    "objective.on_policy.weight",
    "objective.off_policy.weight",
)
"""Keys where a schedule may stand, but for those of plugins and of auxiliary terms."""


def in_words(value: object) -> str:
    """A number or name as it is, a component with its options: `linear (start 1.0, end 0.05)`."""
    if not isinstance(value, Mapping):
        return str(value)
    options = ", ".join(f"{key} {in_words(item)}" for key, item in value.items() if key != "type" and item is not None)
    return f"{value.get('type')} ({options})" if options else str(value.get("type"))


def value_of(config: Config, key: str) -> Any:
    """The value at a dotted key; None where a block on the way is not there."""
    found: Any = config
    for name in key.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def schedules(config: Config) -> dict[str, str]:
    """dotted key -> the schedule that stands there, in words."""
    found = {key: value_of(config, key) for key in NUMBERS}
    return {key: in_words(value) for key, value in found.items() if isinstance(value, Mapping)}


def auxiliary(config: Config) -> dict[str, str]:
    """Auxiliary term -> what it trains with which loss, in words."""
    terms: Config = value_of(config, "objective.auxiliary") or {}
    return {
        name: f"{in_words(term.get('loss'))} on {term.get('samples')}, weight {in_words(term.get('weight'))}"
        for name, term in terms.items()
    }


def intervention(config: Config) -> str:
    """The intervention in words; empty where it is the usual one, replacement."""
    found = value_of(config, "guidance.intervention")
    return "" if found is None or value_of(config, "guidance.intervention.type") == "replace" else in_words(found)


def as_text(value: object) -> str:
    """A value of a config or a summary on one line; a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
