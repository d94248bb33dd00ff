"""A table of results: what its columns show, and how it is written as Markdown, as HTML and on the screen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Generic, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from ampo_core.report import html, markdown
from ampo_core.report.scores import Estimate
from ampo_core.run.progress import say

T = TypeVar("T")
LOG_WIDTH = 160
NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """A heading and what stands under it: text to the left, numbers to the right.

    A screen, which is narrow, leaves out a `wide` one, and shows `brief` where there is one.
    """

    name: str
    cell: Callable[[T], str]
    text: bool = False
    wide: bool = False
    brief: Callable[[T], str] | None = None


@dataclass(frozen=True, slots=True)
class Table(Generic[T]):
    """A row for each of `items`. Those that follow each other with the same first cell are a block if `blocks`."""

    columns: Sequence[Column[T]]
    items: Sequence[T]
    title: str = ""
    caption: str = ""
    notes: Sequence[str] = ()
    blocks: bool = False

    @property
    def head(self) -> list[str]:
        """The headings."""
        return [column.name for column in self.columns]

    @property
    def rows(self) -> list[list[str]]:
        """[items][columns] what stands in the cells."""
        return [[column.cell(item) for column in self.columns] for item in self.items]

    def markdown(self) -> str:
        """The title as a heading, the table, caption and notes."""
        heading = [f"## {self.title}"] if self.title else []
        caption = [self.caption] if self.caption else []
        return "\n\n".join([*heading, markdown.table(self.head, self.rows), *caption, *self.notes])

    def html(self) -> str:
        """The caption, the table and the notes; the title is a matter of the page."""
        left = sum(column.text for column in self.columns)
        table = html.table(self.head, self.rows, caption=self.caption, left=left)
        return table + "".join(map(html.paragraph, self.notes))

    def show(self, console: Console) -> None:
        """Print the table with its caption, and the notes."""
        grid = Grid(
            title_justify="left", caption_justify="left", title=escape(self.title), caption=escape(self.caption)
        )
        columns = [column for column in self.columns if not column.wide]
        for column in columns:
            grid.add_column(escape(column.name), justify="left" if column.text else "right")
        rows = [[escape((column.brief or column.cell)(item)) for column in columns] for item in self.items]
        for name, block in groupby(rows, key=lambda row: row[0] if self.blocks else None):
            for i, (first, *others) in enumerate(block):
                grid.add_row("" if i and name is not None else first, *others)
            grid.add_section()
        # where the console is too narrow, wider than it: a cut number is worth nothing
        needed = console.measure(grid, options=console.options.update(max_width=LOG_WIDTH)).maximum
        wide = Console(file=console.file, width=LOG_WIDTH, force_terminal=console.is_terminal)
        (console if console.width >= needed else wide).print(grid)
        say(console, *self.notes)


def share(value: float | None) -> str:
    """A share in percent; a dash where there is none."""
    return NOTHING if value is None else f"{100 * value:.1f}"


def interval(found: Estimate | None) -> str:
    """A share with its interval, in percent; a dash where there is none."""
    return NOTHING if found is None else f"{share(found.value)} [{share(found.low)}, {share(found.high)}]"


def points(found: Estimate | None) -> str:
    """A difference of shares with its interval, in points; empty where there is nothing to compare with."""
    if found is None:
        return ""
    value, low, high = (f"{100 * number:+.1f}" for number in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"
