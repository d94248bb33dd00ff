"""Keys of version 0.1 that have moved: where each one is answered to have gone, and configs of older runs in today's
keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ampo_core.config.nodes import KeyPath

_ON, _OFF = ("objective", "on_policy"), ("objective", "off_policy")
MOVED: dict[KeyPath, str] = {
    (*_ON, "clip"): "moved to objective.on_policy.loss.low and .high (null = no clip on that side)",
    (*_ON, "dual_clip"): "moved to objective.on_policy.loss.dual",
    (*_ON, "log_ratio_clamp"): "moved to objective.on_policy.loss.log_ratio_clamp",
    (*_OFF, "shaping"): "moved to objective.off_policy.loss.shaping",
    (*_OFF, "clip"): "moved to objective.off_policy.loss.clip",
    (*_OFF, "behaviour"): "moved to objective.off_policy.loss.behaviour_policy",
}


def in_keys_of_today(config: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A resolved train config of an older run in today's keys, with the notes on what has moved; others as they are."""
    objective = config.get("objective")
    on, off = (dict(objective.get(name) or {}) for name in ("on_policy", "off_policy")) if objective else ({}, {})
    old = [path for path in MOVED if path[-1] in (on if path[1] == "on_policy" else off)]
    if not objective or not old:
        return dict(config), ()
    low, high = on.pop("clip", None) or (None, None)
    on["loss"] = {
        "type": "clip",
        "low": low,
        "high": high,
        "dual": on.pop("dual_clip", None),
        "log_ratio_clamp": on.pop("log_ratio_clamp", None),
    }
    off["loss"] = {
        "type": "shaped",
        "shaping": off.pop("shaping", None),
        "clip": off.pop("clip", None),
        "behaviour_policy": off.pop("behaviour", "one"),
    }
    fresh = {**config, "judges": {}, "objective": {**objective, "on_policy": on, "off_policy": off, "auxiliary": {}}}
    if config.get("guidance"):
        fresh["guidance"] = {**config["guidance"], "intervention": {"type": "replace"}}
    return fresh, tuple(f"{'.'.join(map(str, path))}: {MOVED[path]}" for path in old)
