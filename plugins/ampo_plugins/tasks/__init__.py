"""Built-in tasks: small worlds that make their own questions, teacher answers and start model."""

from ampo_registry import ComponentSpec, hookimpl

from ampo_plugins.tasks.labelled_arithmetic import LabelledArithmetic
from ampo_plugins.tasks.reasoning_gym import ReasoningGym


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """The tasks of this package."""
    return [LabelledArithmetic, ReasoningGym]
