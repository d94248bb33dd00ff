"""Selectors: which teacher answers enter a group that needs guidance."""

from ampo_registry import ComponentSpec, hookimpl

from ampo_plugins.selectors.comprehension import Comprehension
from ampo_plugins.selectors.length import Length
from ampo_plugins.selectors.random import RandomChoice


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """The selectors of this folder."""
    return [Comprehension, Length, RandomChoice]
