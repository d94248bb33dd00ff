"""Selector `ucb`: a bandit over teachers, which learns from what became of the questions that they helped with."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, Literal

from ampo_registry import (
    BuildContext,
    ComponentSpec,
    Grade,
    JsonValue,
    Outcome,
    Selection,
    SelectionRequest,
    Selector,
    SelectorSpec,
    StepContext,
    hookimpl,
)
from pydantic import Field, NonNegativeFloat


class Ucb(SelectorSpec):
    """Choose the teachers whose answers helped: UCB1, rewarded by how a question's share of right responses changed.

    A teacher that was never chosen comes first, and the dataset's order breaks ties.
    """

    type: Literal["ucb"] = "ucb"
    exploration: NonNegativeFloat = Field(
        default=0.5, description="c of gain + c·√(ln N / n): how much it counts to have been chosen n of N times"
    )

    def build(self, context: BuildContext) -> Selector:
        return Bandit(self.exploration)


class Bandit:
    """Counts a choice when it is made, and judges it when its question comes again: solved or not, guided or not."""

    def __init__(self, exploration: float) -> None:
        self.exploration = exploration
        self.chosen: Counter[str] = Counter()
        self.judged: Counter[str] = Counter()
        self.gained: dict[str, float] = {}
        self.pending: dict[str, tuple[float, list[str]]] = {}
        """uid -> share that was right when it was last taught, and who taught it."""

    def select(self, requests: Sequence[SelectionRequest], context: StepContext) -> list[list[Selection]]:
        for teacher in sorted(self.judged):
            context.log(f"ucb/gain/{teacher}", self.gain(teacher))
        context.log("ucb/pending", len(self.pending))
        return [self._choose(request) for request in requests]

    def _choose(self, request: SelectionRequest) -> list[Selection]:
        """One request after the other: a choice counts for the next one already, so a step does not pull one arm."""
        values = [self.value(candidate.teacher) for candidate in request.candidates]
        best = sorted(range(len(values)), key=lambda place: -values[place])[: request.k]
        self.chosen.update(request.candidates[place].teacher for place in best)
        return [Selection(request.candidates[i], values[i] if math.isfinite(values[i]) else None) for i in best]

    def gain(self, teacher: str) -> float:
        """Mean change in the share of right responses, from -1 to 1; 0 where nothing is judged yet."""
        return self.gained.get(teacher, 0.0) / max(self.judged[teacher], 1)

    def value(self, teacher: str) -> float:
        """The upper confidence bound; infinite for a teacher that was never chosen."""
        if not self.chosen[teacher]:
            return math.inf
        unknown = math.sqrt(math.log(self.chosen.total()) / self.chosen[teacher])
        return self.gain(teacher) + self.exploration * unknown

    def feedback(self, outcomes: Sequence[Outcome]) -> None:
        shares = [right(outcome.grades) for outcome in outcomes]
        for outcome, share in zip(outcomes, shares, strict=True):
            if share is not None and outcome.question.uid in self.pending:
                before, teachers = self.pending.pop(outcome.question.uid)
                for teacher in teachers:
                    self.judged[teacher] += 1
                    self.gained[teacher] = self.gained.get(teacher, 0.0) + share - before
        for outcome, share in zip(outcomes, shares, strict=True):
            if share is not None and outcome.trained and outcome.selections:
                teachers = [selection.guidance.teacher for selection in outcome.selections]
                self.pending[outcome.question.uid] = share, teachers

    def state_dict(self) -> dict[str, JsonValue]:
        return {
            "chosen": dict[str, JsonValue](self.chosen),
            "judged": dict[str, JsonValue](self.judged),
            "gained": dict[str, JsonValue](self.gained),
            "pending": {uid: [share, [*teachers]] for uid, (share, teachers) in self.pending.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.chosen, self.judged = Counter(state["chosen"]), Counter(state["judged"])
        self.gained = dict(state["gained"])
        self.pending = {uid: (share, list(teachers)) for uid, (share, teachers) in state["pending"].items()}


def right(grades: Sequence[Grade]) -> float | None:
    """The share of right responses among those with a verdict; None if there is none."""
    known = [grade.correct for grade in grades if grade.status == "ok"]
    return fmean(known) if known else None


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """What this distribution brings."""
    return [Ucb]
