"""Advantages: how much better a response is than its group."""

from ampo_registry import ComponentSpec, hookimpl

from ampo_plugins.advantages.distill import Distill
from ampo_plugins.advantages.group_normalized import GroupNormalized
from ampo_plugins.advantages.mean_only import MeanOnly
from ampo_plugins.advantages.on_policy_baseline import OnPolicyBaseline


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """The advantages of this folder."""
    return [Distill, GroupNormalized, MeanOnly, OnPolicyBaseline]
