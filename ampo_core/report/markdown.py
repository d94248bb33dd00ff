"""Tables in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def cell(value: object) -> str:
    """`value` as the cell of a table; None is unknown."""
    return re.sub(r"\s+", " ", "unknown" if value is None else str(value)).replace("|", r"\|")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, all columns but the first to the right."""
    lines = [["---", *["---:"] * (len(header) - 1)], *([cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [[cell(name) for name in header], *lines])
