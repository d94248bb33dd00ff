"""Where the metrics of observers go: open only while the observers of a step are called."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from statistics import fmean
from typing import cast

from ampo_registry.errors import PluginError
from ampo_registry.step import checked_metric


class StepLog:
    """What observers measure of the step that has just finished."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] | None = None
        self._taken: Collection[str] = ()

    def begin(self, taken: Collection[str]) -> None:
        """A step has finished; `taken` are the names of its metrics."""
        self._values, self._taken = {}, taken

    def add(self, name: str, value: float) -> None:
        """A metric of the step; several values of a name are averaged.

        Raises PluginError outside a step, for a name that is the core's or has come already, and for a value that is
        no finite number.
        """
        if self._values is None:
            raise PluginError(
                f"log: {name!r} belongs to no step: an observer logs in ampo_step_finished and nowhere else"
            )
        number = checked_metric(name, value)
        if name in self._taken:
            raise PluginError(f"log: the step has a metric {name!r} already; give yours a name of its own")
        self._values.setdefault(name, []).append(number)

    def take(self, found: object) -> Iterator[tuple[str, str]]:
        """Add what an observer returned, names with numbers. Gives what is left out: a name, and what is wrong."""
        if not isinstance(found, Mapping):
            yield "", f"it must return a mapping of names to numbers, or None; found {found!r:.80}"
            return
        for name, value in cast(Mapping[str, float], found).items():
            try:
                self.add(name, value)
            except PluginError as error:
                yield str(name), str(error)

    def end(self) -> dict[str, float]:
        """The step's metrics by name."""
        values, self._values = self._values or {}, None
        return {name: fmean(numbers) for name, numbers in sorted(values.items())}
