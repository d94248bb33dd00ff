"""Rollouts: who samples the responses. Each folder is one sampler; its spec.py has the options."""

from ampo_registry import ComponentSpec, hookimpl

from ampo_plugins.rollouts.transformers.spec import TransformersRollout
from ampo_plugins.rollouts.vllm.spec import VllmRollout, VllmServerRollout


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """The rollouts of this package."""
    return [TransformersRollout, VllmRollout, VllmServerRollout]
