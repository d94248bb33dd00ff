"""The kit on components that remember: what they may, and one component for each way in which a run would go wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest
from ampo_registry import (
    BuildContext,
    LateTeacherPool,
    LateTeacherPoolSpec,
    Outcome,
    Question,
    RolloutGroup,
    Schedule,
    ScheduleSpec,
    Selection,
    SelectionContext,
    SelectionRequest,
    Selector,
    SelectorSpec,
    TeacherAnswer,
    Trigger,
    TriggerContext,
    TriggerSpec,
)
from ampo_registry import testing as kit
from pydantic import PrivateAttr

ON_MODULE: Counter[str] = Counter()
FAULTS = {
    "module": r"memory lives in the component that build\(\) returns, never on its module or its spec",
    "spec": r"memory lives in the component that build\(\) returns, never on its module or its spec",
    "stateless": r"must give its memory to checkpoints: it needs state_dict\(\) and load_state_dict\(\)",
    "forgets": r"must go on as that one does: all that it remembers belongs into state_dict\(\)",
    "keys": r"state_dict\(\) must be the same after load_state_dict\(\)",
    "sets": r"selector: state_dict\(\) must give JSON types: Object of type set",
}


class Counting(SelectorSpec):
    """Chooses whom it has chosen least, and learns from feedback."""

    type: Literal["counting"] = "counting"
    fault: str = ""
    _shared: Counter[str] = PrivateAttr(default_factory=Counter)

    def build(self, context: BuildContext) -> Selector:
        pulls = {"module": ON_MODULE, "spec": self._shared}.get(self.fault, Counter())
        return (Silent if self.fault == "stateless" else Remembering)(self.fault, pulls)


class Silent:
    """Counts pulls in `select` and rewards in `feedback`."""

    def __init__(self, fault: str, pulls: Counter[str]) -> None:
        self.fault, self.pulls, self.won = fault, pulls, Counter[str]()

    def select(self, requests: Sequence[SelectionRequest], context: SelectionContext) -> list[list[Selection]]:
        chosen = []
        for request in requests:
            order = sorted(request.candidates, key=lambda found: self.pulls[found.teacher] - self.won[found.teacher])
            chosen.append([Selection(found, float(self.pulls[found.teacher])) for found in order[: request.k]])
            self.pulls.update(selection.guidance.teacher for selection in chosen[-1])
        return chosen

    def feedback(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            assert len(outcome.samples) == len(outcome.advantages) == len(outcome.grades)
            self.won.update(selection.guidance.teacher for selection in outcome.selections[:1] if outcome.trained)


class Remembering(Silent):
    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"pulls": dict(self.pulls), "won": dict(self.won)}
        match self.fault:
            case "forgets":
                del state["won"]
            case "keys":
                state["won"] = {len(name): count for name, count in self.won.items()}
            case "sets":
                state["won"] = set(self.won)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pulls, self.won = Counter(state["pulls"]), Counter(state.get("won", {}))


def test_a_selector_that_counts_its_pulls_and_learns_keeps_the_contract() -> None:
    kit.check_selector(Counting())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_selector_whose_memory_a_run_would_lose_is_refused(fault: str) -> None:
    with pytest.raises(AssertionError, match=f"selector counting: .*{FAULTS[fault]}"):
        kit.check_selector(Counting(fault=fault))


class Resting(TriggerSpec):
    """Fires for every second group that is all wrong."""

    type: Literal["resting"] = "resting"
    fault: str = ""

    def build(self, context: BuildContext) -> Trigger:
        return (Bare if self.fault == "stateless" else Turns)(ON_MODULE if self.fault == "module" else Counter())


class Bare:
    """A counter."""

    def __init__(self, seen: Counter[str]) -> None:
        self.seen = seen

    def fires(self, group: RolloutGroup, context: TriggerContext) -> bool:
        self.seen["groups"] += not group.correct
        return not group.correct and self.seen["groups"] % 3 == 0

    def answers(self, question: Question, group: RolloutGroup) -> Sequence[TeacherAnswer]:
        self.seen["asked"] += 1
        return [TeacherAnswer("live", f"<answer>{self.seen['asked']}</answer>")]

    def check_questions(self, questions: Sequence[Question]) -> None: ...

    def value(self, step: int, steps: int, metrics: Mapping[str, float]) -> float:
        self.seen[f"step {step}"] += 1
        return float(len(self.seen))


class Turns(Bare):
    def state_dict(self) -> dict[str, Any]:
        return dict(self.seen)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = Counter(state)


class Live(LateTeacherPoolSpec):
    """Numbers its answers."""

    type: Literal["live"] = "live"
    fault: str = ""

    def build(self, context: BuildContext) -> LateTeacherPool:
        return (Bare if self.fault == "stateless" else Turns)(ON_MODULE if self.fault == "module" else Counter())


class Counted(ScheduleSpec):
    """The number of steps that it was asked about."""

    type: Literal["counted"] = "counted"
    fault: str = ""

    def build(self, context: BuildContext) -> Schedule:
        return (Bare if self.fault == "stateless" else Turns)(ON_MODULE if self.fault == "module" else Counter())


@pytest.mark.parametrize("fault", ["", "module", "stateless"], ids=["none", "module", "stateless"])
def test_triggers_and_late_pools_may_remember_as_selectors_do(fault: str) -> None:
    for check, spec in ((kit.check_trigger, Resting(fault=fault)), (kit.check_teacher_pool, Live(fault=fault))):
        if not fault:
            check(spec)  # type: ignore[operator]
            continue
        with pytest.raises(AssertionError, match=FAULTS[fault]):
            check(spec)  # type: ignore[operator]


def test_a_schedule_that_remembers_on_its_module_is_refused() -> None:
    kit.check_schedule(Counted())
    for fault in ("module", "stateless"):
        with pytest.raises(AssertionError, match=r"two builds must agree|the value must|must see the same values"):
            kit.check_schedule(Counted(fault=fault))


def test_made_up_outcomes_are_of_the_shape_of_a_runs() -> None:
    requests = kit.example_requests()
    outcomes = kit.example_outcomes(requests, step=3, solved=[kit.example_question(99)])
    assert [outcome.position for outcome in outcomes] == [*range(len(requests) + 1)]
    for outcome, request in zip(outcomes, requests, strict=False):
        assert outcome.step == 3
        assert outcome.candidates == request.candidates
        assert outcome.grades == request.grades
        taught = [sample.selection for sample in outcome.samples if sample.selection is not None]
        assert taught == list(outcome.selections)
        assert len(outcome.samples) == len(outcome.advantages) == len(outcome.grades) == 4
    last = outcomes[-1]
    assert (last.question.uid, last.selections, last.trained) == ("question-99", (), False)
    assert all(grade.correct for grade in last.grades)
