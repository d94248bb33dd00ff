"""Shapings: what is made of the importance ratio x = π_θ/π_φ of a teacher's tokens."""

from ampo_registry import ComponentSpec, hookimpl

from ampo_plugins.shapings.identity import Identity
from ampo_plugins.shapings.log_prob import LogProb
from ampo_plugins.shapings.p_plus_log_prob import PPlusLogProb
from ampo_plugins.shapings.power import Power
from ampo_plugins.shapings.ratio import Ratio


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """The shapings of this folder."""
    return [Ratio, Identity, Power, LogProb, PPlusLogProb]
