"""A suite's tables for the eye: on the screen, as Markdown, as HTML and as pictures; their numbers as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ampo_core.evaluation.statistics import average
from ampo_core.jobs.suite.plan import Plan
from ampo_core.jobs.suite.statistics import SeedEstimate
from ampo_core.jobs.suite.tables import ResultRow, ResultTable, gather
from ampo_core.report.curves import read_run
from ampo_core.report.figures import Figure, Line, Trace, colour
from ampo_core.report.html import picture
from ampo_core.report.marks import footnotes, signed
from ampo_core.report.page import plain_page
from ampo_core.report.pictures import draw, training_figures
from ampo_core.report.tables import NOTHING, Column, Table, points, share
from ampo_core.run.files import write_atomically, write_json
from ampo_core.run.folder import METRICS
from ampo_core.run.progress import say

CAPTION = (
    "Shares in percent. Avg. is the mean over sets, as mean ± standard deviation over training seeds, with the 95 % "
    "interval of a bootstrap that draws seeds and questions anew. Few seeds make a rough interval: read it beside the "
    "single seeds. Length in tokens. Tokens and teacher answers are what a run's own training used, means over seeds; "
    "after a + those of the runs that it was made from, but without the stages that all share."
)
SHOWN = ("tokens_generated", "tokens_trained", "teacher_answers")


def write_tables(plan: Plan, console: Console) -> None:
    """Print the tables that are asked for and write them as Markdown, HTML and pictures, with their numbers.

    TABLE.png shows the scores with every seed, TABLE.curves.png the training curves as in a report.
    Raises RunError if what a finished evaluation left cannot be read.
    """
    folder, path = plan.root / "tables", plan.root / "results.json"
    tables = gather(plan, console)
    folder.mkdir(exist_ok=True)
    for table in tables:
        shown = as_table(table)
        shown.show(console)
        images = [picture(name, table.title) for name in draw_pictures(plan, table, folder)]
        write_atomically(folder / f"{table.name}.md", shown.markdown() + "\n")
        page = plain_page(table.title, "\n".join([shown.html(), *images]))
        write_atomically(folder / f"{table.name}.html", page)
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_json(path, {**known, **{table.name: table.as_json() for table in tables}})
    say(console, f"tables: {folder}")


def as_table(table: ResultTable) -> Table[ResultRow]:
    """The table with all columns; those of single sets and seeds are too many for a screen."""
    sets = list(dict.fromkeys(name for row in table.rows for name in row.sets))
    further = list(dict.fromkeys(name for row in table.rows for name in row.further))
    baseline = next(row.title for row in table.rows if row.run == table.baseline)
    changed = {row.title: row.changed for row in table.rows}
    columns: list[Column[ResultRow]] = [
        Column(table.evaluation or "run", lambda row: signed(row.title, changed), text=True),
        *map(_of_set, sets if len(sets) > 1 else ()),
        Column("Avg.", lambda row: _mean(row.score)),
        Column("95 %", lambda row: f"[{share(row.score.low)}, {share(row.score.high)}]" if row.score else NOTHING),
        Column(f"against {baseline}", lambda row: points(row.difference.estimate if row.difference else None)),
        Column("seeds", lambda row: " ".join(map(share, row.score.seeds)) if row.score else NOTHING, wide=True),
        *map(_of_evaluation, further),
        Column("length", lambda row: f"{row.measured['length_mean']:.1f}" if row.measured else NOTHING),
        Column("cut off", lambda row: share(row.measured.get("truncated")), wide=True),
        *map(_of_budget, SHOWN),
    ]
    lacking = [row for row in table.rows if len(row.seeds) < table.wanted]
    notes = [f"{row.title}: {len(row.seeds)} of {table.wanted} seeds are there." for row in lacking]
    notes += footnotes(changed)
    return Table(columns, table.rows, table.title, CAPTION, [*notes, *([table.note.strip()] if table.note else [])])


def draw_pictures(plan: Plan, table: ResultTable, folder: Path) -> list[str]:
    """Draw TABLE.png and TABLE.curves.png into `folder`, where there are numbers; returns the names of the files."""
    pictures = {f"{table.name}.png": _seeds_figures(table), f"{table.name}.curves.png": _curves(plan, table)}
    for name, figures in pictures.items():
        if figures:
            draw(figures, folder / name)
    return [name for name, figures in pictures.items() if figures]


def _curves(plan: Plan, table: ResultTable) -> list[Figure]:
    lines: list[Line] = []
    for row in table.rows:
        folders = [plan.root / f"seed-{seed}" / row.run for seed in plan.job.seeds]
        trained = [read_run(row.title, folder) for folder in folders if (folder / METRICS).is_file()]
        lines += [Line(row.title, trained, len(lines))] if trained else []
    return training_figures(lines)


def _seeds_figures(table: ResultTable) -> list[Figure]:
    """A dot for each seed, the mean and its interval, row by row; none if there is no score."""
    scores = [(row, row.score) for row in reversed(table.rows) if row.score is not None]
    traces: list[Trace] = []
    for place, (row, score) in enumerate(scores):
        order = 1 if row.run == table.baseline else 0
        dot = {"color": colour(order), "size": 5}
        bar = {"color": colour(order), "size": 20, "symbol": "line-ns", "line": {"width": 3}}
        drawn: list[tuple[Sequence[float], Trace]] = [
            ((score.low, score.high), {"mode": "lines", "line": {"color": colour(order, 0.45), "width": 3}}),
            (score.seeds, {"mode": "markers", "marker": dot}),
            ((score.mean,), {"mode": "markers", "marker": bar}),
        ]
        for values, how in drawn:
            traces.append({"x": [100 * value for value in values], "y": [place] * len(values), **how})
    ticks = {"tickvals": list(range(len(scores))), "ticktext": [row.title for row, _ in scores]}
    words = "Avg. in percent: seeds (dots), mean (bar), 95 % interval (line)"
    layout = {"width": 670, "height": 40 + 40 * len(scores), "xaxis": {"title": {"text": words}}}
    layout["yaxis"] = {**ticks, "range": [-0.6, len(scores) - 0.4]}
    return [Figure("seeds", table.title, "", traces, layout)] if scores else []


def _of_set(name: str) -> Column[ResultRow]:
    return Column(name, lambda row: share(average(row.sets[name])) if row.sets.get(name) else NOTHING, wide=True)


def _of_evaluation(name: str) -> Column[ResultRow]:
    return Column(name, lambda row: _mean(row.further.get(name)))


def _of_budget(name: str) -> Column[ResultRow]:
    return Column(name.replace("_", " "), lambda row: _own_and_before(row.own.get(name), row.budget.get(name)))


def _mean(score: SeedEstimate | None) -> str:
    spread = f" ± {share(score.spread)}" if score is not None and len(score.seeds) > 1 else ""
    return share(score.mean if score else None) + spread


def _own_and_before(own: float | None, total: float | None) -> str:
    if own is None or total is None or own == total:
        return _count(own)
    return f"{_count(own)} + {_count(total - own)}"


def _count(number: float | None) -> str:
    if number is None:
        return NOTHING
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            return f"{number / (1e3 if letter == 'k' else size):.3g}{letter}"
    return f"{number:.0f}"
