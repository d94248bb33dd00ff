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
        found: list[RunWarning] = []
        said: set[tuple[str, str]] = set()
        for (title, kind), track in self._tracks.items():
            explained = any((title, other) in said for other in track.sign.unless)
            warning = track.warning(title, at_the_end=finished and not explained)
            if warning is not None:
                found.append(warning)
                said.add((title, kind))
        return tuple(found)

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
                begun += filter(None, [track.warning(title, at_the_end=False)])
        return begun


class _Track:
    """In which steps a sign showed. `steps` of them are warned of, from `first` to `last`."""

    def __init__(self, sign: Sign) -> None:
        self.sign = sign
        self._measured = self._in_a_row = self._held = 0
        self._row: list[Step] = []
        self._all: list[Step] = []
        """The first steps in which it held, explained or not."""
        self._what = ""
        self.steps = self._first = self._last = self._until = 0

    def take(self, step: Step, *, holds: bool, explained: bool) -> None:
        """A step in which the sign `holds` or not; one that another sign has `explained` says nothing of it."""
        self._measured += 1
        if holds:
            self._held, self._until = self._held + 1, step.number
            self._all += [step] if len(self._all) < self.sign.after else []
        if not holds:
            self._in_a_row, self._row = 0, []
        elif not explained:
            self._in_a_row += 1
            if self._in_a_row <= self.sign.after:
                self._row.append(step)
            if self._in_a_row >= self.sign.after:
                self._count(step)

    def warning(self, title: str, *, at_the_end: bool) -> RunWarning | None:
        """What is said of the sign, if anything; `title` says of what it was seen. `at_the_end` also of fewer steps, if
        it held in all of them: whether another sign explained it in some does not count where that one is not said."""
        what, first, last, steps = self._what, self._first, self._last, self.steps
        if not steps:
            if not (at_the_end and 0 < self._held == self._measured):
                return None
            what, steps = self.sign.what(self._all), self._held
            first, last = self._all[0].number, self._until
        text = f"{title}: {what}" if title else what
        return RunWarning(self.sign.kind, text, self.sign.look, first, last, steps)

    def _count(self, step: Step) -> None:
        if not self.steps:
            self._what, self._first = self.sign.what(self._row), self._row[0].number
        self.steps += len(self._row) if self._in_a_row == self.sign.after else 1
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
