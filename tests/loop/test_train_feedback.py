"""What a selector is told: the grades of what was sampled, and at the end of a step what became of its questions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ampo_plugins.selectors.length import Length
from ampo_plugins.selectors.random import RandomChoice
from ampo_registry.discovery import Plugins, discover

from ampo_core.loop import guidance
from ampo_core.loop.guidance import Guide
from tests.loop.worlds import metrics_of, run, train

LISTENING = """
import json
from typing import Literal
from ampo_registry import Selection, SelectorSpec, hookimpl


class Listening(SelectorSpec):
    \"\"\"Takes the first candidates and writes down what it is told.\"\"\"

    type: Literal["listening"] = "listening"

    def build(self, context):
        return Listener(context.run_dir)


class Listener:
    def __init__(self, folder):
        self.folder, self.told, self.asked = folder, 0, {}

    def select(self, requests, context):
        for request in requests:
            assert len(request.grades) == len(request.rollouts) == 4
            self.asked[request.question.uid] = [grade.reward for grade in request.grades]
        return [[Selection(candidate) for candidate in request.candidates[: request.k]] for request in requests]

    def feedback(self, outcomes):
        self.told += 1
        lines = [
            {
                "uid": o.question.uid, "rewards": [grade.reward for grade in o.grades],
                "candidates": len(o.candidates), "selections": [s.guidance.teacher for s in o.selections],
                "samples": [s.selection and s.selection.guidance.teacher for s in o.samples],
                "advantages": o.advantages, "trained": o.trained, "step": o.step, "position": o.position,
                "asked": self.asked.pop(o.question.uid, None),
            }
            for o in outcomes
        ]
        with (self.folder / "told.jsonl").open("a") as file:
            file.write(json.dumps(lines) + "\\n")

    def state_dict(self):
        return {"told": self.told}

    def load_state_dict(self, state):
        self.told = state["told"]


@hookimpl
def ampo_specs():
    return [Listening]
"""


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> Plugins:
    plugin = tmp_path_factory.mktemp("plugin") / "telling_plugin.py"
    plugin.write_text(LISTENING, encoding="utf-8")
    return discover([plugin])


def told(config: Mapping[str, Any], folder: Path, telling: Plugins) -> tuple[Path, list[list[dict[str, Any]]]]:
    """A run's policy, and for each step what the selector was told."""
    policy, _ = run(config, folder, telling, "guidance.selector=listening")
    return policy, [json.loads(line) for line in (policy.parents[2] / "told.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.process
def test_a_selector_is_told_of_every_question_once_a_step(
    world: Path, student: Path, telling: Plugins, tmp_path: Path
) -> None:
    policy, steps = told(train(world, student, guidance={"replacements": 2}), tmp_path, telling)
    lines = metrics_of(policy)
    assert [len(outcomes) for outcomes in steps] == [6, 6, 6]
    for number, (outcomes, line) in enumerate(zip(steps, lines, strict=True), start=1):
        assert [(outcome["step"], outcome["position"]) for outcome in outcomes] == [(number, i) for i in range(6)]
        rewards = [reward for outcome in outcomes for reward in outcome["rewards"]]
        assert sum(rewards) / len(rewards) == pytest.approx(line["reward/mean"])
        asked = [outcome for outcome in outcomes if outcome["asked"]]
        assert all(outcome["asked"] == outcome["rewards"] for outcome in asked)
        assert all(outcome["selections"] == [] for outcome in outcomes if not outcome["asked"])
        assert sum(len(outcome["selections"]) for outcome in asked) == line["guidance/replaced"] * 6 > 0
        for outcome in outcomes:
            assert sorted(outcome["selections"]) == sorted(filter(None, outcome["samples"]))
            assert len(outcome["selections"]) <= outcome["candidates"]
            assert len(outcome["advantages"]) == len(outcome["samples"]) == 4
            assert outcome["trained"]
    assert any(any(outcome["advantages"]) for outcomes in steps for outcome in outcomes)
    memory = json.loads((policy.parent / "ranks/0.json").read_text("utf-8"))
    assert memory["components"]["selector"] == {"told": 3}  # before the checkpoint


@pytest.mark.process
def test_what_the_group_filter_leaves_out_is_told_too(
    world: Path, student: Path, telling: Plugins, tmp_path: Path
) -> None:
    drop = {"group_filter": {"drop": ["all_wrong", "all_correct"], "resample": True}}
    config = train(world, student, objective=drop, guidance={"intervention": "keep"})
    policy, steps = told(config, tmp_path, telling)
    lines = metrics_of(policy)
    assert [len(outcomes) for outcomes in steps] == [line["groups/sampled"] for line in lines]
    assert [sum(o["trained"] for o in outcomes) for outcomes in steps] == [line["groups/trained"] for line in lines]
    assert any(not outcome["trained"] for outcomes in steps for outcome in outcomes)
    assert all([o["position"] for o in outcomes] == [*range(len(outcomes))] for outcomes in steps)


def test_a_selector_without_feedback_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guidance, "Outcome", None)
    bare = type("Bare", (), {"select": lambda self, requests, context: []})()
    for selector in (Length(), RandomChoice(), bare):
        parts: Any = (None, None, None, selector, None, None, None, 0, {})
        Guide(*parts).feedback([], [None], set(), 1)  # type: ignore[list-item]
