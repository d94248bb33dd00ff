"""Trackers: one that raises is told of once and left out from then on; training does not end by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ampo_registry.errors import AmpoError
from ampo_registry.protocols import BuildContext, Stateful
from ampo_registry.specs import TrackerSpec

from ampo_core.checked.build import build
from ampo_core.checked.component import memory_of


class Trackers:
    """The open trackers by place and type. `say` gets a sentence for each that fails."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._open: dict[str, Any] = {}
        self._failed: set[str] = set()

    def open(self, specs: Sequence[TrackerSpec], context: BuildContext, kept: Mapping[str, Any]) -> None:
        """Open them, with what those that have a memory knew at the checkpoint, `kept`. Raises what keeps one from
        starting."""
        for position, spec in enumerate(specs):
            name = f"{position}.{type(spec).__name__}"
            tracker = self._open[name] = build(spec, context)
            if name in kept and isinstance(tracker, Stateful):
                self._try(name, partial(tracker.load_state_dict, kept[name]))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Tell all of them the metrics of a step."""
        for name in self._working():
            self._try(name, partial(self._open[name].log, dict(metrics), step))

    def states(self) -> dict[str, Any]:
        """The memory of those that have one, as JSON."""
        found = {}
        for name in self._working():
            tracker = self._open[name]
            if isinstance(tracker, Stateful):
                state = self._try(name, partial(memory_of, tracker))
                if name not in self._failed:
                    found[name] = state
        return found

    def close(self) -> None:
        """Close them, the last one first, those that have failed too: what they wrote before is kept."""
        for name in reversed(self._open):
            self._try(name, self._open[name].close)
        self._open.clear()

    def _working(self) -> list[str]:
        return [name for name in self._open if name not in self._failed]

    def _try(self, name: str, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except AmpoError as error:
            self._leave_out(name, str(error))
            return None

    def _leave_out(self, name: str, reason: str) -> None:
        if name not in self._failed:
            self._failed.add(name)
            self._say(f"warning: {reason}; the run goes on without this tracker")
