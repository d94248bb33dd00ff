"""Interventions: what a group that needs guidance consists of, once teacher answers are selected."""

from ampo_registry import ComponentSpec, hookimpl

from ampo_plugins.interventions.hint import Hint
from ampo_plugins.interventions.keep import Keep
from ampo_plugins.interventions.prefix import Prefix
from ampo_plugins.interventions.replace import Replace


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """The interventions of this folder."""
    return [Replace, Prefix, Hint, Keep]
