"""A selector with memory, and an end of the run at a chosen moment: AMPO_TEST_END=WHERE:STEP[:RANK].

term      SIGTERM after STEP
kill      SIGKILL after STEP, whose line is in metrics.jsonl, with half a line after it
state     SIGKILL when the checkpoint of STEP asks for the selector's memory
flush     SIGKILL when that checkpoint is filled, before it gets its name
renamed   SIGKILL when it has its name, before anything else knows of it
latest    SIGKILL when `latest` is about to name it
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from ampo_registry import BuildContext, Selection, SelectionContext, SelectionRequest, SelectorSpec, hookimpl
from ampo_registry.specs import ComponentSpec

WHERE, STEP, RANK = (os.environ.get("AMPO_TEST_END", "nowhere:0") + ":0").split(":")[:3]


def end(where: str, step: int, rank: int = 0, how: int = signal.SIGKILL) -> None:
    if (where, step, rank) == (WHERE, int(STEP), int(RANK)):
        os.kill(os.getpid(), how)


class TakingTurns(SelectorSpec):
    """Chooses by how often it was asked before."""

    type: Literal["taking_turns"] = "taking_turns"

    def build(self, context: BuildContext) -> Turns:
        return Turns(context.rank)


class Turns:
    def __init__(self, rank: int) -> None:
        self.rank, self.asked, self.step = rank, 0, 0

    def select(self, requests: Sequence[SelectionRequest], context: SelectionContext) -> list[list[Selection]]:
        self.step = context.step
        chosen = []
        for request in requests:
            candidates = request.candidates
            chosen.append([Selection(candidates[self.asked % len(candidates)])] if candidates else [])
            self.asked += 1
        return chosen

    def state_dict(self) -> dict[str, Any]:
        end("state", self.step, self.rank)
        return {"asked": self.asked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.asked = state["asked"]


def before(module: Any, name: str, act: Callable[[str], None], after: bool = False) -> None:
    """Call `act` with the target's name before (or after) `module.name(source, target)`."""
    original = getattr(module, name)

    def patched(source: Any, target: Any) -> Any:
        if not after:
            act(Path(target).name)
        result = original(source, target)
        if after:
            act(Path(target).name)
        return result

    setattr(module, name, patched)


@hookimpl
def ampo_run_started(context: Any) -> None:
    name = f"step-{int(STEP):06d}"
    written: list[str] = []

    def at(where: str, target: str) -> Callable[[str], None]:
        def act(found: str) -> None:
            written.append(found)
            if found == target and (name in written or found == name):
                end(where, int(STEP))

        return act

    if WHERE in ("flush", "renamed"):
        before(os, "rename", at(WHERE, name), after=WHERE == "renamed")
    if WHERE == "latest":
        before(os, "rename", written.append, after=True)
        before(os, "replace", at("latest", "latest"))


@hookimpl
def ampo_step_finished(report: Any, context: Any) -> None:
    end("term", report.step, how=signal.SIGTERM)
    if (WHERE, int(STEP)) == ("kill", report.step):
        with (context.folder / "metrics.jsonl").open("a") as file:
            file.write('{"step": 2, "reward/me')
    end("kill", report.step)


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    return [TakingTurns]
