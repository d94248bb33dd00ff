"""Says of a run that learns nothing that it does: on the screen, to observers, in the report.

What is said is a function of the config and the lines of metrics.jsonl. So a run that goes on says what one says that
was left alone, and its report says it too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from ampo_registry.warning import RunWarning

from ampo_core.report.signs import HELD_OUT, SIGNS, Sign, Step
from ampo_core.report.sources import RunData
from ampo_core.run.files import metrics_lines
from ampo_core.run.folder import METRICS

_OF_A_SET = re.compile(r"(?:(?P<model>.+)/)?eval/(?P<set>[^/]+)/truncated")


class Watch:
    """Looks at the steps of a run of `job`, in order, with the resolved `config`."""

    def __init__(self, job: str, config: Mapping[str, Any]) -> None:
        self._signs, self._config = SIGNS.get(job, ()), config
        self._first_loss, self._guided = math.nan, False
        self._tracks = {("", sign.kind): _Track(sign) for sign in self._signs}

    @classmethod
    def over(cls, job: str, config: Mapping[str, Any], folder: Path) -> Self:
        """One that has seen the steps in `folder`/metrics.jsonl, if there are any."""
        watch, path = cls(job, config), folder / METRICS
        for line in metrics_lines(path) if path.is_file() else ():
            watch.see(line.value["step"], line.value)
        return watch

    def see(self, step: int, metrics: Mapping[str, float | None]) -> list[RunWarning]:
        """Take in a step, or an evaluation beside one; the warnings that begin with it."""
        found = {name: math.nan if value is None else value for name, value in metrics.items()}
        if math.isnan(self._first_loss):
            self._first_loss = found.get("policy/loss", math.nan)
        self._guided |= Step(step, found, self._config).taught
        begun = self._judge(self._signs, Step(step, found, self._config, self._first_loss, self._guided), "")
        for title, held_out, own in _sets(found):
            begun += self._judge(HELD_OUT, Step(step, own, self._config, held_out=held_out), title)
        return begun

    def warnings(self, *, finished: bool) -> tuple[RunWarning, ...]:
        """What is to be said so far. Of a finished run also what showed in all of its steps, if it has few."""
        found = (track.warning(title, finished=finished) for (title, _), track in self._tracks.items())
        return tuple(warning for warning in found if warning is not None)

    def _judge(self, signs: tuple[Sign, ...], step: Step, title: str) -> list[RunWarning]:
        begun: list[RunWarning] = []
        seen: set[str] = set()
        for sign in signs:
            if not all(name in step.metrics for name in sign.needs):
                continue
            track = self._tracks.setdefault((title, sign.kind), _Track(sign))
            holds, explained, known = sign.holds(step), not seen.isdisjoint(sign.unless), track.steps > 0
            track.take(step, holds=holds, explained=explained)
            seen |= {sign.kind} if holds and not explained else set()
            if track.steps and not known:
                begun += filter(None, [track.warning(title, finished=False)])
        return begun


class _Track:
    """In which steps a sign showed. `steps` of them are warned of, from `first` to `last`."""

    def __init__(self, sign: Sign) -> None:
        self._sign = sign
        self._measured = self._in_a_row = 0
        self._row: list[Step] = []
        self._what = ""
        self.steps = self._first = self._last = 0

    def take(self, step: Step, *, holds: bool, explained: bool) -> None:
        """A step in which the sign `holds` or not; one that another sign has `explained` says nothing of it."""
        self._measured += 1
        if not holds:
            self._in_a_row, self._row = 0, []
        elif not explained:
            self._in_a_row += 1
            if self._in_a_row <= self._sign.after:
                self._row.append(step)
            if self._in_a_row >= self._sign.after:
                self._count(step)

    def warning(self, title: str, *, finished: bool) -> RunWarning | None:
        """What is said of the sign, if anything; `title` says of what it was seen."""
        what, first, last, steps = self._what, self._first, self._last, self.steps
        if not steps:
            if not (finished and 0 < self._in_a_row == self._measured):
                return None
            what, steps = self._sign.what(self._row), len(self._row)
            first, last = self._row[0].number, self._row[-1].number
        text = f"{title}: {what}" if title else what
        return RunWarning(self._sign.kind, text, self._sign.look, first, last, steps)

    def _count(self, step: Step) -> None:
        if not self.steps:
            self._what, self._first = self._sign.what(self._row), self._row[0].number
        self.steps += len(self._row) if self._in_a_row == self._sign.after else 1
        self._last = step.number


def warnings_of(runs: Iterable[RunData]) -> Iterator[tuple[RunData, RunWarning]]:
    """What is to be said of runs, from their folders. Raises ConfigError for a file that cannot be read."""
    for run in runs:
        for warning in Watch.over(run.job, run.config, run.path).warnings(finished=run.finished):
            yield run, warning


def _sets(metrics: Mapping[str, float]) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Each held-out set that `metrics` are of: what to call it, its name, and its metrics by short names."""
    for name in metrics:
        if found := _OF_A_SET.fullmatch(name):
            model, held_out = found["model"], found["set"]
            start = name.removesuffix("truncated")
            own = {metric.removeprefix(start): value for metric, value in metrics.items() if metric.startswith(start)}
            yield (f"{model} on {held_out}" if model else f"evaluation of {held_out}"), held_out, own
