"""Observer `my_observer`: how many different responses a group holds."""

from statistics import fmean

from ampo_registry import RunContext, StepReport, hookimpl


@hookimpl
def ampo_step_finished(report: StepReport, context: RunContext) -> dict[str, float]:
    """Called after each step, before its metrics are written; what it returns belongs to them."""
    shares = [len(set(group.texts)) / len(group.texts) for group in report.groups if group.texts]
    return {"my_observer/distinct": fmean(shares)} if shares else {}
