"""Rollouts: who samples the responses."""

from ampo_registry import ComponentSpec, hookimpl

from ampo_plugins.rollouts.transformers import TransformersRollout
from ampo_plugins.rollouts.vllm.server import VllmServerRollout
from ampo_plugins.rollouts.vllm.spec import VllmRollout


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """The rollouts of this package."""
    return [TransformersRollout, VllmRollout, VllmServerRollout]
