"""Rules between keys that several jobs share. Errors refuse a config, warnings are only said."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ampo_registry.specs import ComponentSpec, RewardSpec, RolloutSpec
from ampo_registry.step import CORE
from ampo_registry.text import FILE_NAME, MAX_NAME
from ampo_registry.text import nearest as nearest_match

from ampo_core.config.nodes import Finding, KeyPath, nearest, shortened
from ampo_core.config.tree import CheckpointConfig, DeepSpeedConfig, ResourcesConfig

REWARD_ONLY = ("format_weight", "repetition_penalty", "overlong_penalty")
"""Options of every reward that say nothing about whether a response is correct."""


def well_named(names: Iterable[str], path: KeyPath) -> Iterator[Finding]:
    """Names that are keys at `path` and become parts of metric names and files."""
    for name in names:
        yield from well_formed(name, (*path, name))


def well_formed(name: str, path: KeyPath) -> Iterator[Finding]:
    """The name that stands at `path`."""
    if len(name) > MAX_NAME or not re.fullmatch(FILE_NAME, name):
        text = f"found the name {shortened(name)}; expected at most {MAX_NAME} letters, digits, '.', '_' and '-', a "
        text += "letter or digit first"
        yield Finding(path, text)


def unique(names: list[str], path: KeyPath) -> Iterator[Finding]:
    """The `name` of each item of the list at `path`."""
    for i, name in enumerate(names):
        if name in names[:i]:
            yield Finding((*path, i, "name"), f"{name!r} is taken by an earlier one")


def in_vain(spec: ComponentSpec, options: Iterable[str], path: KeyPath, text: str) -> Iterator[Finding]:
    """A warning for each of `options` that was set and that nothing reads. A null changes nothing and is fine."""
    for option in options:
        if option in spec.model_fields_set and getattr(spec, option) is not None:
            yield Finding((*path, option), text, "warning")


def only_verifies(reward: RewardSpec, path: KeyPath) -> Iterator[Finding]:
    """The reward of an evaluation."""
    text = "an evaluation counts correct responses, not rewards; nothing reads this"
    yield from in_vain(reward, REWARD_ONLY, path, text)


def lone_hostfile(resources: ResourcesConfig) -> Iterator[Finding]:
    """A host file without nodes."""
    if resources.hostfile is not None and resources.nodes == 1:
        yield Finding(("resources", "hostfile"), "with resources.nodes = 1 nothing reads this", "warning")


def unfit(rollout: RolloutSpec, resources: ResourcesConfig) -> Iterator[Finding]:
    """A rollout that cannot run on the ranks of `resources`."""
    reason = rollout.unfit(resources.devices * resources.nodes)
    if reason is not None:
        yield Finding(("rollout",), reason)


def known_best(checkpoint: CheckpointConfig, metrics: Iterable[str]) -> Iterator[Finding]:
    """`checkpoint.best` of a job that logs `metrics`."""
    known = list(metrics)
    if checkpoint.best is not None and checkpoint.best not in known:
        own = "/" in checkpoint.best and not checkpoint.best.startswith(CORE)
        if not own or nearest_match(checkpoint.best, known):
            text = f"this job has no metric {checkpoint.best}{nearest(checkpoint.best, known)}"
            yield Finding(("checkpoint", "best"), text)
        else:
            text = f"no component says that it logs {checkpoint.best}; unless an observer does, no checkpoint is best"
            yield Finding(("checkpoint", "best"), text, "warning")


def sharded(config: DeepSpeedConfig, dtype: str) -> Iterator[Finding]:
    """What the ZeRO stage of `config` allows, for weights of `dtype`."""
    if dtype == "bfloat16" and config.zero_stage == 0:
        text = "found 0 with model.dtype bfloat16; DeepSpeed keeps float32 masters from ZeRO 1 on: use 1, 2 or 3"
        yield Finding(("deepspeed", "zero_stage"), text)
    if config.offload_optimizer != "none" and config.zero_stage == 0:
        text = "found cpu with zero_stage 0; only states that ZeRO 1 to 3 shard can be offloaded"
        yield Finding(("deepspeed", "offload_optimizer"), text)
    if config.offload_parameters != "none" and config.zero_stage < 3:
        text = f"found cpu with zero_stage {config.zero_stage}; only ZeRO 3 can offload weights"
        yield Finding(("deepspeed", "offload_parameters"), text)
