"""Components are built here: what a spec builds has the methods of its kind, and is asked through `call.py`."""

from __future__ import annotations

from typing import Any, cast

from ampo_registry.credit import is_short
from ampo_registry.protocols import Advantage, BuildContext
from ampo_registry.specs import ComponentSpec

from ampo_core.checked.call import Asked, shown
from ampo_core.checked.component import Checked, Wrapper
from ampo_core.checked.credit import CheckedCredit, CheckedJudge
from ampo_core.checked.guidance import CheckedPool, CheckedSelector, CheckedTrigger
from ampo_core.checked.sampling import CheckedEngine
from ampo_core.checked.tasks import CheckedTask
from ampo_core.checked.tensors import (
    CheckedAdvantage,
    CheckedAggregator,
    CheckedLoss,
    CheckedSchedule,
    CheckedShaping,
)

WRAPPERS: dict[str, Wrapper] = {
    "rollout": CheckedEngine,
    "trigger": CheckedTrigger,
    "teacher_pool": CheckedPool,
    "selector": CheckedSelector,
    "advantage": CheckedAdvantage,
    "loss": CheckedLoss,
    "aggregator": CheckedAggregator,
    "shaping": CheckedShaping,
    "schedule": CheckedSchedule,
    "task": CheckedTask,
    "judge": CheckedJudge,
}
METHODS = {
    "rollout": ("generate", "load_weights", "sleep", "wake", "close"),
    "trigger": ("fires",),
    "teacher_pool": ("answers", "check_questions"),
    "selector": ("select",),
    "intervention": ("intervene",),
    "advantage": ("credit",),
    "judge": ("logprobs",),
    "loss": ("token_losses",),
    "aggregator": ("token_weights",),
    "shaping": ("shape",),
    "schedule": ("value",),
    "tracker": ("log", "close"),
    "task": ("make", "write_start_model"),
}
"""What the core calls on a component of each kind."""


def build(spec: ComponentSpec, context: BuildContext) -> Any:
    """The component of `spec`, as the core holds it. Raises PluginFault where `build` raises or gives none."""
    asked = Asked.of(spec, place=context.place)
    component: object = asked.ask("build", context)
    wanted = METHODS.get(spec.kind, ())
    short = spec.kind == "advantage" and component is not None and is_short(cast(Advantage, component))
    missing = [method for method in wanted if not short and not callable(getattr(component, method, None))]
    if component is None or missing:
        methods = " and ".join(f"{method}()" for method in missing or wanted)
        raise asked.wrong("build", shown(component), f"a {spec.kind}, which has {methods}")
    wrapper = CheckedCredit if spec.kind == "advantage" and not short else WRAPPERS.get(spec.kind, Checked)
    return wrapper(Asked.of(spec, component, context.place))
