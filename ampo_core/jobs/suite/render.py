"""A suite's tables for the eye: on the screen, as Markdown, as HTML and as a picture with every seed in it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from ampo_core.evaluation.compare import print_table
from ampo_core.evaluation.statistics import average
from ampo_core.jobs.suite.statistics import SeedEstimate
from ampo_core.report import markdown
from ampo_core.report.curves import COLOURS
from ampo_core.run.files import write_atomically
from ampo_core.run.progress import say

if TYPE_CHECKING:
    from ampo_core.jobs.suite.tables import ResultRow, ResultTable

CAPTION = (
    "Shares in percent. Avg. is the mean over sets, as mean ± standard deviation over training seeds, with the 95 % "
    "interval of a bootstrap that draws seeds and questions anew. Few seeds make a rough interval: read it beside the "
    "single seeds. Length in tokens. Tokens and teacher answers are what training used, means over seeds, with those "
    "of the runs that a run started from, but without the stages that all share."
)
_BUDGET = {
    "tokens_generated": "tokens generated",
    "tokens_trained": "tokens trained",
    "teacher_answers": "teacher answers",
}
_STYLE = """\
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; white-space: nowrap; }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
p { max-width: 50rem; }
"""


def render(tables: Sequence[ResultTable], folder: Path, console: Console) -> None:
    """Print `tables` and write NAME.md, NAME.html and, where there are scores, NAME.png into `folder`."""
    for table in tables:
        header, rows = cells(table)
        print_table(_for_the_screen(table, header, rows), console)
        draw(table, folder / f"{table.name}.png")
        pictures = [name for name in (f"{table.name}.png", f"{table.name}.curves.png") if (folder / name).exists()]
        write_atomically(folder / f"{table.name}.md", as_markdown(table, header, rows))
        write_atomically(folder / f"{table.name}.html", as_html(table, header, rows, pictures))
        say(console, *missing(table), *([table.note] if table.note else []))


def _for_the_screen(table: ResultTable, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """The table without the columns of single sets and seeds, which are in the files."""
    left_out = {name for row in table.rows for name in row.sets} | {"seeds", "cut off"}
    kept = [i for i, name in enumerate(header) if name not in left_out]
    shown = Table(title=table.title, title_justify="left", caption=CAPTION, caption_justify="left")
    for i in kept:
        shown.add_column(header[i], justify="right" if i else "left", no_wrap=True)
    for row in rows:
        shown.add_row(*(row[i] for i in kept))
    return shown


def cells(table: ResultTable) -> tuple[list[str], list[list[str]]]:
    """The header and a text for every cell."""
    sets = list(dict.fromkeys(name for row in table.rows for name in row.sets))
    further = list(dict.fromkeys(name for row in table.rows for name in row.further))
    several = len(sets) > 1
    baseline = next(row.title for row in table.rows if row.run == table.baseline)
    header = [table.evaluation or "run", *(sets if several else ()), "Avg.", "95 %", f"against {baseline}", "seeds"]
    header += [*further, "length", "cut off", *_BUDGET.values()]
    return header, [_row_cells(row, sets if several else [], further) for row in table.rows]


def _row_cells(row: ResultRow, sets: Sequence[str], further: Sequence[str]) -> list[str]:
    found = [row.title]
    found += [f"{100 * average(row.sets[name]):.1f}" if row.sets.get(name) else "–" for name in sets]
    score, versus = row.score, row.difference
    found.append(_mean(score))
    found.append(f"[{100 * score.low:.1f}, {100 * score.high:.1f}]" if score else "–")
    found.append(f"{100 * versus.value:+.1f} [{100 * versus.low:+.1f}, {100 * versus.high:+.1f}]" if versus else "")
    found.append(" ".join(f"{100 * value:.1f}" for value in score.seeds) if score else "–")
    found += [_mean(row.further.get(name)) for name in further]
    length, cut = row.measured.get("length_mean"), row.measured.get("truncated")
    found += [f"{length:.1f}" if length is not None else "–", f"{100 * cut:.1f}" if cut is not None else "–"]
    return [*found, *(_count(row.budget.get(name)) for name in _BUDGET)]


def _mean(score: SeedEstimate | None) -> str:
    if score is None:
        return "–"
    spread = f" ± {100 * score.spread:.1f}" if len(score.seeds) > 1 else ""
    return f"{100 * score.value:.1f}{spread}"


def _count(number: float | None) -> str:
    if number is None:
        return "–"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            return f"{number / (1e3 if letter == 'k' else size):.3g}{letter}"
    return f"{number:.0f}"


def missing(table: ResultTable) -> list[str]:
    """A sentence for each row that lacks seeds."""
    return [
        f"{row.title}: {len(row.seeds)} of {table.wanted} seeds are there."
        for row in table.rows
        if len(row.seeds) < table.wanted
    ]


def as_markdown(table: ResultTable, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table with its caption as Markdown."""
    return "\n\n".join([f"## {table.title}", markdown.table(header, rows), *_texts(table)]) + "\n"


def as_html(table: ResultTable, header: Sequence[str], rows: Sequence[Sequence[str]], pictures: Sequence[str]) -> str:
    """The same as a page; `pictures` lie beside it."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "\n".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    texts = "\n".join(f"<p>{html.escape(text)}</p>" for text in _texts(table))
    title = html.escape(table.title)
    images = "\n".join(
        f'<p><img src="{html.escape(name)}" alt="{title}" style="max-width: 100%"></p>' for name in pictures
    )
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{title}</title>\n<style>\n{_STYLE}</style>\n<h1>{title}</h1>\n"
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>\n'
        f"{texts}\n{images}\n</html>\n"
    )


def _texts(table: ResultTable) -> list[str]:
    return [CAPTION, *missing(table), *([table.note.strip()] if table.note else [])]


def draw(table: ResultTable, path: Path) -> bool:
    """A dot for each seed, the mean and its interval, row by row, into `path` (PNG); False if there is no score."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in reversed(table.rows) if row.score is not None]
    if not rows:
        return False
    figure = Figure(figsize=(7.0, 0.9 + 0.42 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        score = row.score
        assert score is not None
        colour = COLOURS[1] if row.run == table.baseline else COLOURS[0]
        axes.plot([100 * score.low, 100 * score.high], [place, place], color=colour, linewidth=2.5, alpha=0.45)
        axes.plot([100 * value for value in score.seeds], [place] * len(score.seeds), "o", color=colour, markersize=4)
        axes.plot([100 * score.value], [place], "|", color=colour, markersize=16, markeredgewidth=2.5)
    axes.set_yticks(range(len(rows)), [row.title for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("Avg. in percent: seeds (dots), mean (bar), 95 % interval (line)", fontsize=9)
    axes.set_title(table.title, fontsize=10)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    return True
