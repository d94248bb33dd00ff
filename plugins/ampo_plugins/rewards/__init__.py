"""Rewards: how a response is verified."""

from ampo_registry import ComponentSpec, hookimpl

from ampo_plugins.rewards.choice import Choice
from ampo_plugins.rewards.countdown import Countdown
from ampo_plugins.rewards.exact import Exact
from ampo_plugins.rewards.function import Function
from ampo_plugins.rewards.math_verify import MathVerify
from ampo_plugins.rewards.reasoning_gym import ReasoningGym
from ampo_plugins.rewards.regex import Regex
from ampo_plugins.rewards.sum import Sum


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """The built-in rewards."""
    return [Choice, Countdown, Exact, Function, MathVerify, ReasoningGym, Regex, Sum]
