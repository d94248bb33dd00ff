"""Keys of version 0.1 that have moved: where each one is answered to have gone, and configs of older runs in today's
keys. And what other projects call the keys of data: where they live here."""

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

_PROMPT, _ANSWER = "data.columns: {prompt: NAME}", "data.columns: {answer: NAME}"
_HUB = "{hub: NAME, config: CONFIG, split: SPLIT}"
THEIRS = {
    "prompt_key": _PROMPT,
    "input_key": _PROMPT,
    "question_key": _PROMPT,
    "prompt_column": _PROMPT,
    "messages_key": _PROMPT,
    "answer_key": _ANSWER,
    "label_key": _ANSWER,
    "answer_column": _ANSWER,
    "ground_truth_key": _ANSWER,
    "reward_fn_key": "data.columns: {source: NAME}",
    "output_key": "data.columns: {target: NAME}",
    "train_files": "data.train: [FILE, …]",
    "train_file": "data.train: [FILE, …]",
    "prompt_data": "data.train: [FILE, …]",
    "prompt_dataset": f"data.train: [FILE, …] or [{_HUB}]",
    "prompt_probs": "data.weights: [SHARE, …]",
    "prompt_data_probs": "data.weights: [SHARE, …]",
    "val_files": "evaluation.sets: {NAME: {path: FILE}}",
    "eval_dataset": "evaluation.sets: {NAME: {path: FILE}}",
    "dataset": f"data.train: [FILE, …] or [{_HUB}]",
    "dataset_name": f"data.train: [{_HUB}]",
    "dataset_config": f"data.train: [{_HUB}]",
    "dataset_split": f"data.train: [{_HUB}]",
    "dataset_train_split": f"data.train: [{_HUB}]",
    "dataset_test_split": f"evaluation.sets: {{NAME: {{path: {_HUB}}}}}",
    "prompt_split": f"data.train: [{_HUB}]",
    "hub": f"data.train: [{_HUB}]",
    "split": f"data.train: [{_HUB}]",
    "max_prompt_length": "data.max_prompt_tokens",
    "prompt_max_len": "data.max_prompt_tokens",
    "max_len": "data.max_prompt_tokens and rollout.max_response_tokens",
    "max_response_length": "rollout.max_response_tokens",
    "train_batch_size": "training.questions_per_batch",
    "filter_overlong_prompts": "data.overlong_prompts: drop",
    "truncation": "data.overlong_prompts: drop or cut",
    "val_max_samples": "evaluation.sets: {NAME: {limit: NUMBER}}",
    "apply_chat_template_kwargs": "model.chat_template_options",
    "apply_chat_template": "model.chat_template; a prompt always goes through the chat template",
}
"""Keys of verl, TRL and OpenRLHF at the top of a config or in its `data`."""


def elsewhere(path: KeyPath) -> str | None:
    """What is said of a key that has moved, or that another project has; None for any other."""
    if path in MOVED:
        return MOVED[path]
    key = str(path[-1])
    if path[:-1] in ((), ("data",)) and key in THEIRS:
        return f"no such key; here that is {THEIRS[key]}"
    if len(path) == 4 and path[:2] == ("evaluation", "sets") and key in ("hub", "split", "config", "revision"):
        return f"no such key; here that is path: {_HUB}"
    return None


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
