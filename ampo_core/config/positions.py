"""How many tokens a model can hold, as its config.json says, and which limits of a job go beyond that."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from ampo_registry.errors import ConfigError
from ampo_registry.specs import RolloutSpec

from ampo_core.config.job import Job
from ampo_core.config.models import config_file
from ampo_core.config.nodes import Finding

STRETCHING = ("yarn", "linear", "dynamic")
"""Ways of scaling rotary positions that max_position_embeddings need not know of; with others it is the whole."""


def positions_of(path: str) -> int | None:
    """The positions of the model `path`; None where its config.json is not on this machine or does not say."""
    file = config_file(path)
    if file is None:
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # said when the model is loaded
        return None
    return positions_in(found) if isinstance(found, Mapping) else None


def positions_in(config: Mapping[str, Any]) -> int | None:
    """Those of a config.json. Where it leaves open whether a scaling is in the number, the larger one counts."""
    inner = config.get("text_config")
    config = {**config, **inner} if isinstance(inner, Mapping) else config
    found = config.get("max_position_embeddings", config.get("n_positions"))
    if not isinstance(found, int) or isinstance(found, bool) or found <= 0:
        return None
    return max([found, *(_stretched(found, rope) for rope in _ropes(config))])


def beyond_positions(job: Job) -> Iterator[Finding]:
    """The limits of `job` that a model of its, whose config.json is here, has no room for."""
    for limit in job.longest():
        positions = positions_of(limit.model)
        if positions is not None and limit.tokens > positions:
            text = f"the model {limit.model} has {positions} positions; found {limit.tokens} tokens: {limit.text}"
            yield Finding(limit.path, text, limit.severity)


def beyond_room(job: Job) -> Iterator[Finding]:
    """The limits of `job` that its rollout has no room for."""
    for path, spec in job.used_components():
        option, room = (isinstance(spec, RolloutSpec) and spec.room()) or ("", math.inf)
        for limit in job.longest():
            if limit.tokens > room:
                text = f"found {room}; {limit.tokens} tokens may be needed: {limit.text}"
                yield Finding((*path, option), text, limit.severity)


def require_room(positions: int | None, prompt: int, response: int, key: str) -> None:
    """Raise ConfigError, which names `key`, if a model of `positions` has no room for the longest prompt that it is
    really asked and a response of `response` tokens."""
    if positions is not None and prompt + response > positions:
        raise ConfigError(
            f"{key}: found {response}; the longest prompt has {prompt} tokens and the model {positions} positions: "
            f"at most {positions - prompt}"
        )


def _ropes(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The scalings of rotary positions: one, or one for each kind of layer."""
    found = [config.get("rope_scaling"), config.get("rope_parameters")]
    flat = [rope for rope in found if isinstance(rope, Mapping)]
    return flat + [rope for several in flat for rope in several.values() if isinstance(rope, Mapping)]


def _stretched(positions: int, rope: Mapping[str, Any]) -> int:
    kind, factor = rope.get("rope_type", rope.get("type")), rope.get("factor")
    if kind not in STRETCHING or not isinstance(factor, (int, float)) or not math.isfinite(factor):
        return positions
    original = rope.get("original_max_position_embeddings") if kind == "yarn" else None
    return int((original if isinstance(original, int) else positions) * factor)
