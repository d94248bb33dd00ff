"""The pluggy hooks. `ampo_specs` brings components; the others observe the jobs train, sft and evaluate.

An observer that raises is reported once and does not stop training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ampo_registry.markers import hookspec
from ampo_registry.protocols import RunContext
from ampo_registry.specs import ComponentSpec
from ampo_registry.types import StepReport
from ampo_registry.warning import RunWarning


@hookspec
def ampo_specs() -> Sequence[type[ComponentSpec]]:  # type: ignore[empty-body]
    """Return the spec classes of this plugin; the base class gives the kind."""


@hookspec
def ampo_run_started(context: RunContext) -> None:
    """Called once, on rank 0: by train and sft before the first step, by evaluate before the first model samples."""


@hookspec
def ampo_step_finished(report: StepReport, context: RunContext) -> Mapping[str, float] | None:
    """Called by train and sft after each step, on rank 0, before its metrics are written. What it returns, and what it
    logs with `context.log`, are metrics of that step under names of its own. `report.metrics` cannot be written to;
    `report.groups` is empty in sft, which samples nothing."""


@hookspec
def ampo_run_finished(context: RunContext, warnings: tuple[RunWarning, ...]) -> None:
    """Called once, on rank 0, when the run is done: by train and sft after the last checkpoint, by evaluate when its
    results are written. A run that fails does not call it. `warnings` say what shows that it learnt nothing."""
