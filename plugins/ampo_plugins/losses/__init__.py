"""Losses: what a token of a term costs. Each file is one paper's rule."""

from ampo_registry import ComponentSpec, hookimpl

from ampo_plugins.losses.cispo import Cispo
from ampo_plugins.losses.clip import Clip
from ampo_plugins.losses.gspo import Gspo
from ampo_plugins.losses.nll import NegativeLogLikelihood
from ampo_plugins.losses.policy_gradient import PolicyGradient
from ampo_plugins.losses.shaped import Shaped


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """The losses of this folder."""
    return [Clip, PolicyGradient, Gspo, Cispo, Shaped, NegativeLogLikelihood]
