"""Aggregators: how much each sequence's tokens weigh in a term of the loss."""

from ampo_registry import ComponentSpec, hookimpl

from ampo_plugins.aggregators.constant import Constant
from ampo_plugins.aggregators.seq import Sequencewise
from ampo_plugins.aggregators.token import Tokenwise


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """The aggregators of this folder."""
    return [Tokenwise, Sequencewise, Constant]
