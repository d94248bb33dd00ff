"""The sections of one train or sft run: its numbers, curves, guidance, time, health and rollouts."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from ampo_registry.samples import OFF_POLICY, ON_POLICY

from ampo_core.config.metric_names import ANSWERS, MACRO, TEACHER, TERM_LOSS, by_teacher, group_of_plugin
from ampo_core.report.budget import replacements, total_of
from ampo_core.report.curves import RunCurves, Series
from ampo_core.report.figures import (
    Figure,
    Line,
    Panel,
    Trace,
    axes,
    colour,
    figures_of,
    held_out_panels,
    last_part,
    look,
    rounded,
    running_mean,
    shown,
    smoothed,
    smoothing_width,
    stacked,
)
from ampo_core.report.html import paragraph, table
from ampo_core.report.page import Group, Section
from ampo_core.report.samples import Samples
from ampo_core.report.sources import RunData
from ampo_core.run.progress import duration

LEARNING = (
    Panel("reward/mean", "Reward", "mean reward", paper="Figure 4(a)"),
    Panel("reward/accuracy", "Accuracy of the rollouts", share=True),
    Panel("response/length_mean", "Response length", "tokens", paper="Figure 4(b)"),
    Panel("policy/grad_norm", "Gradient norm", "norm before clipping", may_be_logarithmic=True, paper="Figure 4(c)"),
    Panel("policy/entropy", "Entropy", "nats a token", paper="Figure 4(d)"),
    Panel("policy/loss", "Loss", "loss"),
)
GUIDANCE = (
    Panel("guidance/triggered", "Questions that needed guidance", share=True),
    Panel("guidance/replaced", "Teacher answers put in, mean over all groups", "answers a group"),
    Panel("guidance/score_mean", "Score of the chosen answers", "score"),
    Panel("guidance/generated", "Tokens that were sampled for guidance", "tokens"),
)
HEALTH = (
    Panel("response/truncated", "Responses cut off at the length limit", share=True),
    Panel("reward/format", "Rollouts in the asked format", share=True),
    Panel("policy/rollout_logprob_gap", "Gap between sampler and trainer", "nats", may_be_logarithmic=True),
    Panel("policy/clip_fraction", "Tokens where the clip binds", share=True),
    Panel("policy/importance_weight", "Importance weight", "weight"),
    Panel("policy/empty_updates", "Updates without a gradient", "updates"),
    Panel("policy/skipped_updates", "Updates left out, gradient not finite", "updates"),
    Panel("verifier/timeouts", "Verifier timeouts", "rollouts"),
    Panel("verifier/errors", "Verifier errors", "rollouts"),
    Panel("guidance/left_out_incorrect", "Teacher answers left out, incorrect", "answers"),
    Panel("guidance/left_out_overlong", "Teacher answers left out, too long", "answers"),
    Panel("guidance/left_out_ungraded", "Teacher answers left out, not graded", "answers"),
    Panel("guidance/unscorable", "Candidates that could not be scored", "answers"),
    Panel("groups/trained", "Groups trained on", "groups"),
    Panel("rollout/staleness", "Versions between sampling and training", "versions"),
    Panel("tokens/padding", "Tokens of padding", "tokens"),
    Panel("policy/learning_rate", "Learning rate", "rate"),
)
HOPS = {
    "time/rollout_s": "sampling",
    "time/reward_s": "grading",
    "time/guidance_s": "guidance",
    "time/credit_s": "advantages",
    "time/update_s": "update",
    "time/sync_s": "weight sync",
}
STEP_TIME = "time/step_s"
MOST_OPEN, MOST_NAMED = 6, 8
"""Metrics of plugins that are shown without a click, and those that a heading names."""
MAIN_TERMS = (ON_POLICY, OFF_POLICY)


def learning_section(lines: Sequence[Line]) -> Section:
    """Held-out accuracy first, then what changes while the policy learns; each term where there are further ones."""
    start = TERM_LOSS.removesuffix("NAME")
    own = [Panel(name, f"Loss of the term {name.removeprefix(start)}", "weighed loss") for name in _names(lines, start)]
    panels = (*held_out_panels(lines), *LEARNING, *(own if len(own) > len(MAIN_TERMS) else ()))
    return Section("curves", "Learning", figures=figures_of(panels, lines))


def plugin_section(lines: Sequence[Line]) -> Section | None:
    """The metrics of plugins by the first part of their names, closed where they are many; None without any."""
    panels: dict[str, list[Panel]] = {}
    for name in _names(lines, ""):
        if (group := group_of_plugin(name)) is not None:
            panels.setdefault(group, []).append(Panel(name, name, name.rpartition("/")[2]))
    few = sum(map(len, panels.values())) <= MOST_OPEN
    groups = [Group(_heading(name, panels[name]), figures_of(panels[name], lines), few) for name in _in_order(panels)]
    return Section("plugins", "Metrics of plugins", groups=groups) if groups else None


def _in_order(groups: Iterable[str]) -> list[str]:
    """Names of their own first, then what losses measure and the numbers of evaluations."""
    return sorted(groups, key=lambda name: (" " in name, name))


def _heading(name: str, panels: Sequence[Panel]) -> str:
    """The group with some of its names, by which one finds a metric that is behind a click."""
    count = f"{len(panels)} metrics" if len(panels) > 1 else "1 metric"
    names = ", ".join(panel.metric.removeprefix(f"{name}/") for panel in panels[:MOST_NAMED])
    return f"{name} · {count}: {names}" + (", …" if len(panels) > MOST_NAMED else "")


def _names(lines: Sequence[Line], start: str) -> list[str]:
    """The metrics of any run whose names begin with `start`, in order."""
    return sorted({name for line in lines for run in line.curves for name in run.series if name.startswith(start)})


def guidance_section(curves: RunCurves, samples: Samples | None) -> Section | None:
    """When teachers were needed, whose answers came in and how well they were understood; None without guidance."""
    if "guidance/triggered" not in curves.series:
        return None
    replaced = replaced_by_teacher(curves)
    figures = figures_of(GUIDANCE, [Line(curves.name, [curves])])
    if replaced:
        figures.insert(1, teachers_figure(replaced))
    scores = samples.scores if samples is not None else {}
    if scores:
        figures.append(_scores_figure(scores, list(replaced)))
    return Section("guidance", "Guidance", figures=figures, after=_teachers_table(_counts(curves), scores))


def _counts(curves: RunCurves) -> dict[str, int | None]:
    """teacher -> its answers put in over all steps."""
    lines: defaultdict[int, dict[str, float]] = defaultdict(dict)
    for metric, series in curves.series.items():
        for step, value in series:
            lines[step][metric] = value
    return dict(sorted(replacements(lines.values()).items()))


def replaced_by_teacher(curves: RunCurves) -> dict[str, Series]:
    """teacher -> (step, its answers a group): counted, or what older releases logged, its share of the replacements."""
    total = dict(curves.series.get("guidance/replaced", ()))
    groups = dict(curves.series.get("groups/sampled", ()))
    counts = {name: dict(series) for name, series in sorted(by_teacher(curves.series, ANSWERS).items())}
    if counts and groups:
        return {name: [(step, count.get(step, 0.0) / groups[step]) for step in total] for name, count in counts.items()}
    shares = {name: dict(series) for name, series in sorted(by_teacher(curves.series, TEACHER).items())}
    return {name: [(step, share.get(step, 0.0) * total[step]) for step in total] for name, share in shares.items()}


def teachers_figure(replaced: Mapping[str, Series], run: str = "") -> Figure:
    """Whose answers were put in, over the steps; `run` names the run where there are several."""
    traces = [
        stacked(name, order, [(step, value) for (step, _), value in zip(series, smoothed(series), strict=True)])
        for order, (name, series) in enumerate(replaced.items())
    ]
    layout = axes("answers a group")
    layout["yaxis"]["rangemode"] = "tozero"
    layout["showlegend"] = True
    title = "Teacher answers put in, by teacher" + (f": {run}" if run else "")
    return Figure(f"guidance-teachers-{run}", title, "running mean, stacked", traces, layout)


def _scores_figure(scores: Mapping[str, Sequence[tuple[int, float]]], teachers: Sequence[str]) -> Figure:
    """Every score that samples.jsonl holds as a point, and each teacher's running mean."""
    traces: list[Trace] = []
    for name in sorted(scores):
        order = teachers.index(name) if name in teachers else len(teachers)
        points = sorted(scores[name])
        base: Trace = {"type": "scatter", "name": name, "x": [step for step, _ in points], "legendgroup": name}
        values = [rounded(value) for _, value in points]
        traces.append({
            **base,
            "y": values,
            "mode": "markers",
            "marker": {"size": 4, "color": colour(order, 0.3)},
            "showlegend": False,
            "meta": {"raw": True},
        })  # fmt: skip
        mean = [rounded(value) for value in running_mean(values, max(9, smoothing_width(len(values))))]
        traces.append({**base, "y": mean, "mode": "lines", "line": look(order)})
    count = sum(map(len, scores.values()))
    layout = {**axes("score"), "showlegend": True, "hovermode": "closest"}
    caption = f"the {count:,} chosen answers in samples.jsonl, and each teacher's running mean"
    return Figure("guidance-scores", "Comprehension score of each answer", caption, traces, layout, wide=True)


def _teachers_table(counts: Mapping[str, int | None], scores: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    everything = total_of(counts.values())
    rows = []
    for name, count in counts.items():
        own = [value for _, value in sorted(scores.get(name, ()))]
        third = max(1, len(own) // 3)
        first, last = (fmean(own[:third]), fmean(own[-third:])) if own else (None, None)
        share = count / everything if count is not None and everything else None
        rows.append([name, shown(share, share=True), shown(first), shown(last)])
    head = ["teacher", "share of all answers put in", "mean score, first third", "mean score, last third"]
    return table(head, rows)


def time_section(curves: RunCurves) -> Section | None:
    """Where the time of each step went; None without times."""
    whole = curves.series.get(STEP_TIME)
    if not whole:
        return None
    parts = {title: dict(curves.series[metric]) for metric, title in HOPS.items() if metric in curves.series}
    layers = {title: [(step, values.get(step, 0.0)) for step, _ in whole] for title, values in parts.items()}
    known = {step: math.fsum(values.get(step, 0.0) for values in parts.values()) for step, _ in whole}
    layers["other" if parts else "step"] = [(step, max(0.0, value - known[step])) for step, value in whole]
    traces = [stacked(name, order, series) for order, (name, series) in enumerate(layers.items())]
    layout = {**axes("seconds a step"), "showlegend": len(layers) > 1}
    total = math.fsum(value for _, value in whole)
    rows = []
    for name, series in layers.items():
        seconds = math.fsum(value for _, value in series)
        rows.append([name, duration(seconds), shown(seconds / total if total else None, share=True)])
    rows.append(["all steps", duration(total), "100 %"])
    note = "Without evaluations and checkpoints. Parts that ran side by side may be more than the step together."
    return Section(
        "time",
        "Time",
        figures=[Figure("time", "Time of a step, by hop", "stacked", traces, layout, wide=True)],
        after=table(["hop", "time", "share"], rows, caption="Over all steps") + paragraph(note),
    )


def health_section(curves: RunCurves) -> Section | None:
    """What one looks at when something is odd. What never changed is a line of text."""
    constant: dict[float, list[str]] = {}
    panels = []
    for panel in HEALTH:
        values = {value for _, value in curves.series.get(panel.metric, ())}
        if len(values) == 1:
            constant.setdefault(values.pop(), []).append(panel.title.lower())
        elif values:
            panels.append(panel)
    notes = [f"Always {shown(value)}: {', '.join(names)}." for value, names in sorted(constant.items())]
    missing = [f"{name} ({count})" for name, count in sorted(curves.left_out.items())]
    if missing:
        notes.append(f"Not a finite number, and left out of the figures (steps): {', '.join(missing)}.")
    if curves.torn:
        notes.append("The last line of metrics.jsonl was not whole and is left out.")
    if not notes and not panels:
        return None
    figures = figures_of(panels, [Line(curves.name, [curves])])
    return Section("health", "Health", "".join(map(paragraph, notes)), figures, folded=not missing and not curves.torn)


def run_tiles(run: RunData) -> list[tuple[str, str, str]]:
    """The numbers that one wants to see first, each with where it came from."""
    series = run.curves.series
    planned = run.setting("training.steps")
    steps = f"of {planned}" if isinstance(planned, int) and planned != run.steps else ""
    found = [("steps", f"{run.steps:,}", steps)]
    evaluated = MACRO if MACRO in series else next((name for name in sorted(series) if "/avg@" in name), None)
    for name, label, share in (
        (evaluated or "", "held-out accuracy", True),
        ("reward/accuracy", "rollout accuracy", True),
        ("reward/mean", "reward", False),
        ("policy/loss", "loss", False),
    ):
        if name not in series or (name == "policy/loss" and run.job == "train"):
            continue
        values = series[name]
        last = values[-1][1] if name == evaluated else last_part(values)
        remark = f"from {shown(values[0][1], share=share)}" if len(values) > 1 else ""
        found.append((label, shown(last, share=share), remark))
    if "response/length_mean" in series:
        values = series["response/length_mean"]
        found.append(("response length", shown(last_part(values)), f"from {shown(values[0][1])} tokens"))
    if STEP_TIME in series:
        seconds = math.fsum(value for _, value in series[STEP_TIME])
        found.append(("time in steps", duration(seconds), f"{shown(seconds / len(series[STEP_TIME]))} s a step"))
    return found
