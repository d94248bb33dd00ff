"""Triggers: which groups get teacher answers."""

from ampo_registry import ComponentSpec, hookimpl

from ampo_plugins.triggers.adaptive import Adaptive
from ampo_plugins.triggers.always import Always


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """The triggers of this folder."""
    return [Adaptive, Always]
