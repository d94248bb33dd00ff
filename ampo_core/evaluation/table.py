"""The tables of an evaluate job: on the screen, and as Markdown in results.md.

Up to `WIDE` models get a block each with a row a set. More of them become rows, with a column a set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.table import Table

from ampo_core.evaluation.compare import Comparison, Row, reading
from ampo_core.evaluation.statistics import Estimate
from ampo_core.report.markdown import table

WIDE = 3
"""More models than this are shown in the compact form."""
CAPTION = (
    "Shares in percent, 95 % intervals in brackets, length in tokens, entropy in nats a token. Intervals resample "
    "questions; they do not tell how another training seed would end."
)
NOTHING = "-"
RESULTS = "results.json"


def screen_table(comparison: Comparison) -> Table:
    """The table as rich prints it."""
    tries = _few(_tries(comparison.rows))
    compact = len(comparison.models) > WIDE
    header, blocks = _compact(comparison) if compact else _by_set(comparison, tries)
    shown = Table(title="Held-out questions", caption=CAPTION, caption_justify="left", title_justify="left")
    for i, name in enumerate(header):
        shown.add_column(name, no_wrap=not compact, justify="left" if i < (1 if compact else 2) else "right")
    for block in blocks:
        for i, cells in enumerate(block):
            shown.add_row(*cells, end_section=i + 1 == len(block) and not compact)
    return shown


def screen_readings(comparison: Comparison) -> list[str]:
    """The readings that fit on a screen: of many models those of the means, against the baseline."""
    if len(comparison.models) <= WIDE:
        return comparison.readings()
    return [*_of_means(comparison), f"Every pair of models is compared in {RESULTS}."]


def markdown(comparison: Comparison, budgets: Mapping[str, str], note: str | None) -> str:
    """results.md: averages, differences to the baseline, pass@k, lengths, budgets, readings. Models are rows."""
    columns = _columns(comparison)
    rows = {(row.model, row.set): row for row in comparison.rows}
    heads = [_heading(comparison, name) for name in columns]
    parts = ["# Held-out questions", table(("model", *heads), _cells(comparison, columns, _average))]
    if len(comparison.models) > 1:
        versus = _cells(comparison, columns, _difference)
        others = [line for line in versus if line[0] != comparison.baseline]
        parts += [f"## Points of difference to {comparison.baseline}", table(("model", *columns), others)]
    for name in columns:
        tries = _tries([row for row in comparison.rows if row.set == name])
        if tries:
            body = [[m, *(_with_interval(rows[m, name].pass_at[k]) for k in tries)] for m in comparison.models]
            parts += [f"## {name}: pass@k", table(("model", *(f"k = {k}" for k in tries)), body)]
    parts += [
        "## Mean length in tokens (share cut off)",
        table(("model", *columns), _cells(comparison, columns, _length)),
    ]
    if budgets:
        parts += ["## What the models' training took", "\n".join(f"- {m}: {line}" for m, line in budgets.items())]
    said = [*_words(comparison), *comparison.unverified()]
    parts += ["## In words", "\n".join(f"- {line}" for line in said)] if said else []
    return "\n\n".join([*parts, CAPTION, *([note.strip()] if note else [])]) + "\n"


def _words(comparison: Comparison) -> list[str]:
    if len(comparison.models) <= WIDE:
        return comparison.readings()
    pairs = [line for each in (comparison, *comparison.others) for line in _of_means(each)]
    return [*pairs, f"The same set by set: {RESULTS}."]


def _of_means(comparison: Comparison) -> list[str]:
    """The readings of groups and macro mean against the baseline; those of a single set where there is no mean."""
    several = any(row.members is not None for row in comparison.rows)
    rows = [row for row in comparison.rows if row.difference and (row.members is not None or not several)]
    return [reading(row, comparison.baseline) for row in rows]


def _by_set(comparison: Comparison, tries: Sequence[int]) -> tuple[list[str], list[list[list[str]]]]:
    """Header and a block of rows for each model."""
    samples = {row.samples for row in comparison.rows}
    averaged = f"avg@{samples.pop()}" if len(samples) == 1 else "avg@k"
    header = ["model", "set", "questions", averaged, *(f"pass@{k}" for k in tries), "length", "cut off", "entropy"]
    versus = any(row.difference for row in comparison.rows)
    header += [f"against {comparison.baseline}"] if versus else []
    blocks = []
    for model in comparison.models:
        own = [row for row in comparison.rows if row.model == model]
        blocks.append([[model if i == 0 else "", *_row(row, tries, versus)] for i, row in enumerate(own)])
    return header, blocks


def _row(row: Row, tries: Sequence[int], versus: bool) -> list[str]:
    entropy = row.measured.get("entropy")
    cells = [row.set, str(row.questions), _with_interval(row.average)]
    cells += [_share(row.pass_at[k].value) if k in row.pass_at else NOTHING for k in tries]
    cells += [f"{row.measured['length_mean']:.1f}", _share(row.measured["truncated"])]
    cells.append(NOTHING if entropy is None else f"{entropy:.3f}")
    return [*cells, _difference(row)] if versus else cells


def _compact(comparison: Comparison) -> tuple[list[str], list[list[list[str]]]]:
    """Header and one block: models as rows, sets as columns, intervals for the last mean only."""
    columns = _columns(comparison)
    rows = {(row.model, row.set): row for row in comparison.rows}
    header = ["model", *(_heading(comparison, name) for name in columns), "length", "cut off"]
    block = []
    for model in comparison.models:
        last = rows[model, columns[-1]]
        shares = [_share(rows[model, name].average.value) for name in columns[:-1]]
        length = [f"{last.measured['length_mean']:.0f}", _share(last.measured["truncated"])]
        block.append([model, *shares, _with_interval(last.average), *length])
    return header, [block]


def _columns(comparison: Comparison) -> list[str]:
    """Sets, then groups, then the macro mean."""
    return list(dict.fromkeys(row.set for row in comparison.rows))


def _heading(comparison: Comparison, name: str) -> str:
    """A column's name with the samples behind it."""
    samples = {row.samples for row in comparison.rows if row.set == name and row.members is None}
    return f"{name} avg@{samples.pop()}" if len(samples) == 1 else name.replace("_", " ")


def _cells(comparison: Comparison, columns: Sequence[str], show: Callable[[Row], str]) -> list[list[str]]:
    """A line for each model: its name, and `show` of its row of each column."""
    rows = {(row.model, row.set): row for row in comparison.rows}
    return [[model, *(show(rows[model, name]) for name in columns)] for model in comparison.models]


def _tries(rows: Sequence[Row]) -> list[int]:
    return sorted({k for row in rows for k in row.pass_at})


def _few(tries: Sequence[int]) -> list[int]:
    """Of a long curve its ends and the middle: the whole stands in results.md."""
    return list(tries) if len(tries) <= 4 else [tries[0], tries[len(tries) // 2], tries[-1]]


def _with_interval(estimate: Estimate) -> str:
    return f"{_share(estimate.value)} [{_share(estimate.low)}, {_share(estimate.high)}]"


def _average(row: Row) -> str:
    return _with_interval(row.average)


def _length(row: Row) -> str:
    return f"{row.measured['length_mean']:.0f} ({_share(row.measured['truncated'])})"


def _difference(row: Row) -> str:
    found = row.difference
    if found is None:
        return ""
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def _share(share: float) -> str:
    return f"{100 * share:.1f}"
