"""What a rank leaves for the process that started it: who it is, and how it ended.

FOLDER/config.yaml      the resolved config
       order.json       what else the ranks need to know
       rank-N.process   JSON: its pid, written as soon as rank N can be told to stop
       rank-N.outcome   JSON: an Outcome; a rank that was killed leaves none
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ampo_registry.errors import AmpoError, ConfigError, RunError

from ampo_core.run.interrupt import INTERRUPTED, Interrupted

Kind = Literal["done", "error", "fault", "lost", "interrupted"]
"""lost: the connection to another rank broke, which is rarely where a trouble began"""
SAID_AGAIN = "this is a fault of AMPO or of a plugin, not of your config; please report it"


@dataclass(frozen=True, slots=True)
class Order:
    """What ranks are told beside the config. `ranks` is how many of them report in the folder."""

    ranks: int
    plugins: Sequence[str]
    trust_remote_code: bool
    allow_changes: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a rank ended. `text` is for a person: an error's message, or a traceback; `trace` is what --debug shows of an
    error besides; `time` in seconds."""

    kind: Kind
    exit_code: int
    text: str = ""
    time: float = 0.0
    trace: str = ""

    def as_error(self, text: str) -> AmpoError:
        """The error of this outcome, with `text`, and as a note the traceback of its rank."""
        error = self._error(text)
        if self.trace:
            error.add_note(self.trace)
        return error

    def _error(self, text: str) -> AmpoError:
        if self.exit_code == ConfigError.exit_code:
            return ConfigError(text)
        if self.exit_code == INTERRUPTED:
            return Interrupted(text)
        return RunError(f"{text.rstrip()}\n{SAID_AGAIN}" if self.kind == "fault" else text)


def write_order(folder: Path, yaml: str, order: Order) -> None:
    """Fill the folder that ranks start from."""
    (folder / "config.yaml").write_text(yaml, encoding="utf-8")
    _write(folder / "order.json", asdict(order))


def read_order(folder: Path) -> Order:
    """The order in `folder`."""
    return Order(**json.loads((folder / "order.json").read_text(encoding="utf-8")))


def announce(folder: Path, rank: int, pid: int) -> None:
    """Say that `rank` has started as the process `pid` of its machine."""
    _write(folder / f"rank-{rank}.process", {"pid": pid})


def leave(folder: Path, rank: int, outcome: Outcome) -> None:
    """Say how `rank` ended."""
    _write(folder / f"rank-{rank}.outcome", {**asdict(outcome), "time": time.time()})


def processes(folder: Path) -> dict[int, int]:
    """rank -> pid, of those that have started."""
    return {rank: int(found["pid"]) for rank, found in _read(folder, "process")}


def outcomes(folder: Path) -> dict[int, Outcome]:
    """rank -> outcome, of those that have ended by themselves."""
    return {rank: Outcome(**found) for rank, found in _read(folder, "outcome")}


def _write(path: Path, value: Mapping[str, Any]) -> None:
    partial = path.with_suffix(".partial" + path.suffix)
    partial.write_text(json.dumps(value), encoding="utf-8")
    partial.replace(path)


def _read(folder: Path, what: str) -> list[tuple[int, dict[str, Any]]]:
    """(rank, content) of all `rank-N.WHAT`."""
    found = []
    for path in folder.glob(f"rank-*.{what}"):
        number = path.stem.removeprefix("rank-")
        if number.isdecimal():
            found.append((int(number), json.loads(path.read_text(encoding="utf-8"))))
    return sorted(found)
