"""The sections of evaluate jobs: accuracy by set, pass@k curves, the table of models and sets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from ampo_registry.errors import ConfigError

from ampo_core.report.facts import spent_table
from ampo_core.report.figures import SHARE_AXIS, Figure, Trace, colour, look, rounded, shown
from ampo_core.report.html import folded, paragraph, table
from ampo_core.report.page import Section

MACRO = "macro"
RESULTS = "results.json"
MOST_TRIES, MOST_TICKS = 4, 10
"""The k of pass@k that a table has columns for, and a figure marks; the curve has all of them."""

Estimate = Mapping[str, float]
Found = Mapping[str, Mapping[str, Any]]
"""set -> what results.json says of a model on it"""


@dataclass(frozen=True, slots=True)
class Scores:
    """What evaluate jobs found: model -> one result a seed. If some model has several, intervals are those over seeds.

    `orders` are places that some models have in other figures of the page.
    """

    title: str
    models: Mapping[str, Sequence[Found]]
    orders: Mapping[str, int] = field(default_factory=dict)
    baseline: str | None = None
    readings: Sequence[str] = ()
    budgets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def sets(self) -> list[str]:
        """All sets in the order they come, the mean over them last."""
        found = dict.fromkeys(name for results in self.models.values() for result in results for name in result)
        return [name for name in found if name != MACRO] + [MACRO] * (MACRO in found)

    @property
    def several(self) -> bool:
        """Whether some model was evaluated with more than one seed."""
        return any(len(results) > 1 for results in self.models.values())

    @property
    def around(self) -> str:
        """What low and high of an estimate are."""
        if self.several:
            return "lowest and highest seed, the same where there is one seed only"
        return "95 % bootstrap interval over questions"

    def estimate(self, model: str, name: str, k: int | None = None) -> Estimate | None:
        """avg@K of `model` on a set, or its pass@k: value, low, high; None where it was not measured."""
        found = [_estimate(result[name], k) for result in self.models[model] if name in result]
        known = [item for item in found if item is not None]
        if known and not self.several:
            return known[0]
        values = [item["value"] for item in known]
        return {"value": fmean(values), "low": min(values), "high": max(values)} if values else None

    def headline(self, model: str) -> str:
        """The model's mean over sets, or what it has on the only set; a dash for a model that was not evaluated."""
        return interval(self.estimate(model, self.sets[-1])) if model in self.models and self.sets else "–"

    def order(self, model: str) -> int:
        """The model's place among those drawn: that of its run, or one after all of these."""
        others = [name for name in self.models if name not in self.orders]
        return self.orders[model] if model in self.orders else len(self.orders) + others.index(model)

    def tries(self, name: str) -> list[int]:
        """The k of pass@k that some model has on a set."""
        found = [result[name] for results in self.models.values() for result in results if name in result]
        return sorted({int(k) for item in found for k in item.get("pass_at", ())})

    def mean(self, model: str, name: str, number: str) -> float | None:
        """A number of a set beside the estimates, the mean over seeds."""
        values = [r[name][number] for r in self.models[model] if name in r and r[name].get(number) is not None]
        return fmean(values) if values else None


def read_results(folder: Path) -> Mapping[str, Any] | None:
    """results.json of an evaluate job; None while it is not there. Raises ConfigError if it cannot be read."""
    path = folder / RESULTS
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found["models"], dict):
            raise TypeError("models is not an object")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read: {error!r}") from error
    return dict(found)


def evaluation_sections(scores: Scores, prefix: str = "") -> list[Section]:
    """The figures and the table of one evaluation; `prefix` keeps ids apart where a page has several."""
    title = f"Evaluation: {scores.title}" if prefix else "Evaluation"
    figures = [_sets_figure(scores, prefix)]
    curves = [figure for name in scores.sets if (figure := _pass_figure(scores, name, prefix)) is not None]
    readings = folded("Differences in words", "".join(map(paragraph, scores.readings)))
    spent = spent_table(scores.budgets)
    sections = [Section(f"{prefix}evaluation", title, figures=figures, after=_table(scores) + readings + spent)]
    if curves:
        sections.append(Section(f"{prefix}pass", "pass@k" + (f": {scores.title}" if prefix else ""), figures=curves))
    return sections


def _sets_figure(scores: Scores, prefix: str) -> Figure:
    sets = scores.sets
    traces: list[Trace] = []
    for model in scores.models:
        found = [(name, estimate) for name in sets if (estimate := scores.estimate(model, name)) is not None]
        traces.append({
            "type": "bar",
            "name": model,
            "x": [_set_title(name) for name, _ in found],
            "y": [rounded(estimate["value"]) for _, estimate in found],
            "error_y": {
                "type": "data",
                "symmetric": False,
                "array": [rounded(estimate["high"] - estimate["value"]) for _, estimate in found],
                "arrayminus": [rounded(estimate["value"] - estimate["low"]) for _, estimate in found],
                "color": "$text/0.7",
                "thickness": 1.2,
                "width": 3,
            },
            "marker": {"color": colour(scores.order(model), 0.85)},
        })  # fmt: skip
    layout = {
        "barmode": "group",
        "showlegend": True,
        "hovermode": "closest",
        "xaxis": {"type": "category", "nticks": 0},
        "yaxis": SHARE_AXIS,
    }
    return Figure(f"{prefix}sets", "Accuracy by set", f"bars: {scores.around}", traces, layout, wide=True)


def _pass_figure(scores: Scores, name: str, prefix: str) -> Figure | None:
    """pass@k over k; avg@K is pass@1. None where there is only one k."""
    traces: list[Trace] = []
    ticks: set[int] = set()
    for model in scores.models:
        found = {k: estimate for k in scores.tries(name) if (estimate := scores.estimate(model, name, k)) is not None}
        average = scores.estimate(model, name)
        if average is not None:
            found = {1: average} | found
        ticks |= set(found)
        traces += _band(model, scores.order(model), dict(sorted(found.items())))
    if len(ticks) < 2:
        return None
    tried = some_of(sorted(ticks), MOST_TICKS)
    marks = {"tickmode": "array", "tickvals": tried, "ticktext": [str(k) for k in tried]}
    layout = {
        "showlegend": True,
        "xaxis": {"title": {"text": "k"}, "type": "log", **marks},
        "yaxis": SHARE_AXIS,
    }
    return Figure(f"{prefix}pass-{name}", f"pass@k, {_set_title(name)}", f"band: {scores.around}", traces, layout)


def _band(model: str, order: int, found: Mapping[int, Estimate]) -> list[Trace]:
    base: Trace = {"type": "scatter", "mode": "lines", "name": model, "x": list(found), "legendgroup": model}
    edge = {**base, "line": {"width": 0, "color": colour(order)}, "showlegend": False, "hoverinfo": "skip"}
    marker = {"size": 6, "color": colour(order)}
    return [
        {**edge, "y": [rounded(item["low"]) for item in found.values()]},
        {
            **edge,
            "y": [rounded(item["high"]) for item in found.values()],
            "fill": "tonexty",
            "fillcolor": colour(order, 0.15),
        },
        {
            **base,
            "mode": "lines+markers" if len(found) <= MOST_TICKS else "lines",
            "y": [rounded(item["value"]) for item in found.values()],
            "line": look(order),
            "marker": marker,
        },
    ]


def _table(scores: Scores) -> str:
    tries = some_of(sorted({k for name in scores.sets for k in scores.tries(name)}), MOST_TRIES)
    versus = scores.baseline is not None and len(scores.models) > 1 and not scores.several
    head = ["model", "set", "questions", "samples", "average", *(f"pass@{k}" for k in tries), "length", "cut off"]
    rows = []
    for model in scores.models:
        for name in scores.sets:
            if not any(name in result for result in scores.models[model]):
                continue
            cells = [model, _set_title(name)]
            cells += [shown(scores.mean(model, name, key), digits=6) for key in ("questions", "samples")]
            cells.append(interval(scores.estimate(model, name)))
            cells += [interval(scores.estimate(model, name, k)) for k in tries]
            cells.append(shown(scores.mean(model, name, "length_mean")))
            cells.append(shown(scores.mean(model, name, "truncated"), share=True))
            if versus:
                difference = scores.models[model][0][name].get("difference")
                cells.append(interval(difference, signed=True) if difference else "")
            rows.append(cells)
    if versus:
        head.append(f"against {scores.baseline}")
    return table(head, rows, caption=f"Shares in percent; brackets: {scores.around}", left=2)


def interval(estimate: Estimate | None, *, signed: bool = False) -> str:
    """An estimate of a share in percent: value [low, high]."""
    if estimate is None:
        return "–"
    value, low, high = (f"{100 * estimate[key]:{'+' if signed else ''}.1f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _estimate(result: Mapping[str, Any], k: int | None) -> Estimate | None:
    found = result.get("avg") if k is None else (result.get("pass_at") or {}).get(str(k))
    return found if isinstance(found, Mapping) and found.get("value") is not None else None


def some_of(tries: Sequence[int], most: int) -> list[int]:
    """At most `most` of the k of a long curve: its ends, and powers of two between them."""
    if len(tries) <= most:
        return list(tries)
    between = [k for k in tries[1:-1] if k & (k - 1) == 0] or tries[1:-1]
    every = -(-len(between) // max(1, most - 2))
    return [tries[0], *between[every - 1 :: every], tries[-1]]


def _set_title(name: str) -> str:
    return "mean over sets" if name == MACRO else name
