"""Progress of a job: live bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

LABELS: dict[str, tuple[str, str]] = {
    "reward/mean": ("reward", ".3f"),
    "reward/accuracy": ("accuracy", ".1%"),
    "guidance/triggered": ("triggered", ".0%"),
    "policy/loss": ("loss", ".4f"),
    "policy/entropy": ("entropy", ".3f"),
}
TOKEN_COUNTS = ("tokens/generated", "tokens/trained")


class Progress:
    """A context manager around `total` steps. `step` shows a finished step's metrics, `note` says a sentence.

    On a terminal the numbers of LABELS, tokens/s and the time left stand beside a bar. Elsewhere a line is printed
    for the first and last step and whenever `line_every` steps or `line_seconds` seconds have passed.
    """

    def __init__(
        self,
        console: Console,
        title: str,
        total: int,
        *,
        line_every: int = 10,
        line_seconds: float = 30.0,
    ) -> None:
        self._console, self._title, self._total = console, title, total
        self._line_every, self._line_seconds = line_every, line_seconds
        self._bar: RichProgress | None = None
        self._task = TaskID(0)
        self._first: tuple[int, float] | None = None
        self._printed_step = 0
        self._printed_at = self._stepped_at = monotonic()

    def __enter__(self) -> Progress:
        self._printed_at = self._stepped_at = monotonic()
        if self._console.is_terminal:
            self._bar = RichProgress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"),
                TimeRemainingColumn(compact=True),
                console=self._console,
            )
            self._task = self._bar.add_task(self._title, total=self._total, numbers="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Step `step` (from 1) of `total` is done; `metrics` by their full names, those that are known are shown."""
        now = monotonic()
        numbers = self._numbers(metrics, now - self._stepped_at)
        self._stepped_at = now
        if self._bar is not None:
            self._bar.update(self._task, completed=step, numbers=numbers)
        elif self._line_is_due(step, now):
            self._printed_step, self._printed_at = step, now
            parts = [f"{self._title} {step}/{self._total}", numbers, self._time_left(step, now)]
            self.note(" ".join(part for part in parts if part))
        if self._first is None:
            self._first = step, now

    def note(self, text: str) -> None:
        """Print a sentence above the bar, or as a line."""
        say(self._console, text)

    def _line_is_due(self, step: int, now: float) -> bool:
        return (
            self._first is None
            or step >= self._total
            or step - self._printed_step >= self._line_every
            or now - self._printed_at >= self._line_seconds
        )

    def _numbers(self, metrics: Mapping[str, float], measured_s: float) -> str:
        shown = [
            f"{label} {metrics[name]:{form}}"
            for name, (label, form) in LABELS.items()
            if name in metrics and math.isfinite(metrics[name])
        ]
        seconds = metrics.get("time/step_s", measured_s)
        count = next((metrics[name] for name in TOKEN_COUNTS if name in metrics), None)
        if count is not None and seconds > 0:
            shown.append(f"{count / seconds:,.0f} tokens/s")
        return " · ".join(shown)

    def _time_left(self, step: int, now: float) -> str:
        # the first step is left out: it also pays for what starts up with it, and a resumed run starts late
        if self._first is None or step <= self._first[0] or step >= self._total:
            return ""
        seconds = (now - self._first[1]) / (step - self._first[0]) * (self._total - step)
        return f"({format_seconds(seconds)} left)"


class Reading:
    """Says how far the reading of a file is, if it takes longer than a moment. A context manager; call it with what is
    read, how much of it is done, and how much there is."""

    def __init__(self, console: Console, *, after_seconds: float = 2.0, line_seconds: float = 10.0) -> None:
        self._console, self._after, self._line_seconds = console, after_seconds, line_seconds
        self._since, self._shown = monotonic(), ExitStack()
        self._progress: Progress | None = None

    def __enter__(self) -> Reading:
        self._since = monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._shown.close()
        self._since, self._progress = monotonic(), None

    def __call__(self, what: str, done: int, total: int) -> None:
        """`done` of `total` parts of `what` are read; with the last one the bar goes away."""
        if self._progress is None and done < total and monotonic() - self._since >= self._after:
            shown = Progress(self._console, f"reading {what}", total, line_every=total, line_seconds=self._line_seconds)
            self._progress = self._shown.enter_context(shown)
        if self._progress is not None:
            self._progress.step(done, {})
        if done >= total:
            self.__exit__()


def say(console: Console, *lines: str) -> None:
    """Print lines as they are; each stays one line whatever the console's width."""
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def format_seconds(seconds: float) -> str:
    """A duration to read: 42s, 3m07s, 2h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def shown_seconds(seconds: float) -> float:
    """What `duration` shows of them, as a number: sums of these agree with what a reader adds up."""
    if seconds < 59.95:
        return round(seconds, 1)
    whole = round(seconds)
    return whole if whole < 3600 else whole // 60 * 60


def duration(seconds: float) -> str:
    """A duration to read, to the tenth of a second below a minute."""
    return f"{seconds:.1f}s" if seconds < 59.95 else format_seconds(seconds)
