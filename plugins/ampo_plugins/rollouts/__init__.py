"""Rollouts: who samples the responses."""

from ampo_registry import ComponentSpec, hookimpl

from ampo_plugins.rollouts.transformers import TransformersRollout
from ampo_plugins.rollouts.vllm import VllmRollout
from ampo_plugins.rollouts.vllm_server import VllmServerRollout


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """The rollouts of this package."""
    return [TransformersRollout, VllmRollout, VllmServerRollout]
