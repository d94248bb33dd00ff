"""What stands at the head of a run's report: what it ran with, how far it came, what it spent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError

from ampo_core.config.data_files import data_name
from ampo_core.report.html import facts, paragraph, table
from ampo_core.report.marks import signed
from ampo_core.report.settings import auxiliary, in_words, intervention, schedules
from ampo_core.report.sources import WITH_CURVES, RunData
from ampo_core.report.spent import added, read_spent
from ampo_core.run.progress import duration

SPENT = {
    "steps": "steps",
    "questions": "questions",
    "rollouts": "rollouts",
    "tokens_generated": "tokens generated",
    "tokens_trained": "tokens trained",
    "teacher_answers": "teacher answers",
    "teacher_tokens": "their tokens",
    "seconds": "time in steps",
}
SPENT_TITLE = "What each spent itself, then the runs that it was made from"


def run_facts(run: RunData) -> str:
    """What a run ran with and what it spent, as a list."""
    own, before, together = spent(run)
    data = run.setting("data.train") or run.setting("questions") or ""
    devices, nodes = run.setting("resources.devices"), run.setting("resources.nodes", 1)
    return facts([
        ("model", str(run.setting("model.path", ""))),
        ("data", ", ".join(map(data_name, data)) if isinstance(data, list) else str(data)),
        ("teachers", ", ".join(map(str, run.manifest.get("teachers") or ()))),
        ("guidance", _guidance(run)),
        ("further terms", _listed(auxiliary(run.config))),
        ("schedules", _listed(schedules(run.config))),
        ("a step", _batch(run)),
        ("seed", str(run.manifest.get("seed", ""))),
        ("devices", f"{devices} on {nodes} node{'s' if nodes != 1 else ''}" if isinstance(devices, int) else ""),
        ("folder", str(run.path)),
    ]) + facts([("spent", own), ("made from", before), ("together", together)])  # fmt: skip


def _guidance(run: RunData) -> str:
    if run.job != "train":
        return ""
    if not run.setting("guidance"):
        return "none (GRPO)"
    selector, trigger = run.setting("guidance.selector.type"), run.setting("guidance.trigger.type")
    answers = in_words(run.setting("guidance.replacements"))
    other = f", intervention {given}" if (given := intervention(run.config)) else ""
    return f"{selector} selector, {trigger} trigger, up to {answers} answers a group{other}"


def _listed(named: Mapping[str, str]) -> str:
    return " · ".join(f"{name}: {text}" for name, text in named.items())


def _batch(run: RunData) -> str:
    questions, size = run.setting("training.questions_per_batch"), run.setting("rollout.group_size")
    if run.job != "train" or questions is None or size is None:
        return ""
    updates = max(1, questions // (run.setting("training.questions_per_minibatch") or questions))
    return f"{questions} questions × {size} rollouts, {updates * run.setting('training.epochs_per_batch', 1)} updates"


def subtitle_of(run: RunData) -> str:
    """The job and how far it came."""
    state = "finished" if run.finished else "not finished"
    planned = run.setting("training.steps")
    if not run.finished and run.job in WITH_CURVES:
        state += f", after step {run.steps}" + (f" of {planned}" if isinstance(planned, int) else "")
    return f"{run.job} run, {state}" + (", changed on the way (--allow-changes)" if run.patches else "")


def spent_table(budgets: Mapping[str, Mapping[str, Any]], marked: Mapping[str, object]) -> str:
    """Budgets in JSON types as a table, with what they do not count; empty without any. `marked` ones get a sign."""
    rows = [row for name, budget in budgets.items() for row in _spent_rows(signed(name, marked), budget)]
    lacking = {name: ", ".join(budget["missing"]) for name, budget in budgets.items() if budget.get("missing")}
    notes = [f"{name}: not counted, for it is not there: {missing}." for name, missing in lacking.items()]
    return table(["", *SPENT.values()], rows, caption=SPENT_TITLE) + "".join(map(paragraph, notes))


def _spent_rows(name: str, budget: Mapping[str, Any]) -> list[list[str]]:
    """What a run spent itself; where it was made from others also what these spent, and the sum. Of results of an
    older release only the sum is known."""
    runs = [Path(folder).name for folder in budget.get("runs") or ()]
    if "own" not in budget:
        return [_spent_row(name + (f", {len(runs)} runs together" if len(runs) > 1 else ""), budget)]
    rows = [_spent_row(name, budget["own"])]
    if len(runs) > 1:
        rows.append(_spent_row(f"↳ made from {', '.join(runs[1:])}", budget["before"]))
        seconds = added(budget["own"].get("seconds"), budget["before"].get("seconds"))
        rows.append(_spent_row("↳ together", {**budget, "seconds": seconds}))
    return rows


def _spent_row(name: str, budget: Mapping[str, Any]) -> list[str]:
    return [name, *(_count(key, budget.get(key)) for key in SPENT)]


def _count(key: str, number: float | None) -> str:
    if number is None:
        return "not known"
    return duration(number) if key == "seconds" else f"{number:,}"


def spent(run: RunData) -> tuple[str, str, str]:
    """What the run spent itself, what it was made from, and the sum: empty where there is none."""
    if run.job not in WITH_CURVES:
        return "", "", ""
    try:
        found = read_spent(run.path)
    except ConfigError as error:
        return str(error), "", ""
    return found.own.line(), found.made_from, found.together
