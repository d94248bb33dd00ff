"""Schedules: numbers that change over the run, in the place of a number in the config."""

from ampo_registry import ComponentSpec, hookimpl

from ampo_plugins.schedules.cosine import Cosine
from ampo_plugins.schedules.linear import Linear
from ampo_plugins.schedules.piecewise import Piecewise


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """The schedules of this folder."""
    return [Linear, Cosine, Piecewise]
