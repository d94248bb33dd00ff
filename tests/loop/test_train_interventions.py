"""Interventions in whole train jobs on a small world: what they train, what they count, and memory that goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ampo_registry.discovery import Plugins, discover

from ampo_core.report.budget import read_budget
from tests.loop.worlds import metrics_of, run, train

pytestmark = pytest.mark.process


def guided_by(world: Path, student: Path, intervention: Mapping[str, Any], **blocks: Any) -> dict[str, Any]:
    """A train config whose groups are all guided so."""
    return train(world, student, guidance={"trigger": "always", "intervention": dict(intervention)}, **blocks)


def test_a_prefix_is_continued_graded_and_counted_and_its_share_falls(
    world: Path, student: Path, plugins: Plugins, tmp_path: Path
) -> None:
    share = {"type": "linear", "start": 1.0, "end": 0.0}
    policy, _ = run(guided_by(world, student, {"type": "prefix", "share": share}), tmp_path, plugins)
    lines = metrics_of(policy)
    assert [line["prefix/share"] for line in lines] == [1.0, 0.5, 0.0]
    assert [line["guidance/replaced"] > 0 for line in lines] == [True, True, False]
    assert [line["tokens/teacher"] > 0 for line in lines] == [True, True, False]
    assert [line["policy/loss_off"] != 0 for line in lines] == [True, True, False]
    assert [line["guidance/generated"] > 0 for line in lines] == [False, True, True]
    assert ["prefix/correct" in line for line in lines] == [False, True, True]
    assert all(line["policy/rollout_logprob_gap"] < 1e-4 for line in lines)
    for line in lines:
        sampled = line["response/length_mean"] * line["groups/sampled"] * 4
        assert line["tokens/generated"] == pytest.approx(sampled + line["guidance/generated"])
    assert read_budget(policy.parents[2]).tokens_generated == sum(line["tokens/generated"] for line in lines)


INTERVENTIONS: dict[str, dict[str, Any]] = {
    "hinted": {"intervention": {"type": "hint", "template": "{question}{hint}"}},
    "original": {"intervention": {"type": "hint", "template": "{question}{hint}", "train": "original"}},
    "context": {"intervention": {"type": "prefix", "share": 0.4, "train": "context"}},
    "ahead": {"intervention": {"type": "prefix", "share": 0.4}, "rollout": {"ahead": 1}},
}


@pytest.mark.parametrize("case", INTERVENTIONS)
def test_interventions_train_what_they_say(
    world: Path, student: Path, plugins: Plugins, tmp_path: Path, case: str
) -> None:
    policy, _ = run(guided_by(world, student, **INTERVENTIONS[case]), tmp_path, plugins, "training.steps=2")
    lines = metrics_of(policy)
    assert all(line["guidance/generated"] > 0 for line in lines)
    assert all(line["policy/grad_norm"] > 0 for line in lines)
    if case == "ahead":
        assert [line["rollout/staleness"] for line in lines] == [0.0, 1.0]
    else:
        assert all(line["policy/rollout_logprob_gap"] < 1e-4 for line in lines)
        assert all(line["policy/loss_off"] == 0 for line in lines)
    if "hint" in INTERVENTIONS[case]["intervention"]["type"]:
        assert all(line["guidance/replaced"] > 0 == line["tokens/teacher"] for line in lines)
        assert all(0 <= line["hint/no_sentence"] < 1 and line["hint/no_room"] == 0 for line in lines)


REMEMBERING = """
from collections.abc import Sequence
from typing import Literal
from ampo_plugins.interventions.prefix import Prefix
from ampo_registry import Guided, Intervened, ScheduleSpec, hookimpl


class Resting(Prefix):
    \"\"\"Leaves every second group alone, counted over all steps.\"\"\"

    type: Literal["resting"] = "resting"

    def build(self, context):
        return Rest(super().build(context))


class Rest:
    def __init__(self, inner):
        self.inner, self.seen = inner, 0

    def intervene(self, requests, context):
        found = list(self.inner.intervene(requests, context).guided)
        for i, request in enumerate(requests):
            self.seen += 1
            if self.seen % 2:
                found[i] = Guided((request.samples,))
        context.log("resting/seen", self.seen)
        return Intervened(found)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


class Fading(ScheduleSpec):
    \"\"\"Falls by as much as was right in the step before.\"\"\"

    type: Literal["fading"] = "fading"

    def build(self, context):
        return Fade()


class Fade:
    def __init__(self):
        self.step, self.share = 0, 0.8

    def value(self, step, steps, metrics):
        if step > self.step:
            self.step, self.share = step, self.share * (1 - metrics.get("reward/accuracy", 0.0)) * 0.9
        return self.share

    def state_dict(self):
        return {"step": self.step, "share": self.share}

    def load_state_dict(self, state):
        self.step, self.share = state["step"], state["share"]


@hookimpl
def ampo_specs():
    return [Resting, Fading]
"""


def test_an_intervention_and_a_schedule_with_memory_go_on_to_the_same_bits(
    world: Path, student: Path, tmp_path: Path
) -> None:
    plugin = tmp_path / "remembering_plugin.py"
    plugin.write_text(REMEMBERING, encoding="utf-8")
    found = discover([plugin])
    config = guided_by(world, student, {"type": "resting", "share": "fading"})
    whole, _ = run(config, tmp_path / "whole", found, "training.steps=4")
    run(config, tmp_path / "again", found, "training.steps=2")
    again, screen = run(config, tmp_path / "again", found, "training.steps=4", allow_changes=True)
    assert "goes on after step 2 of 4" in screen
    assert metrics_of(again) == metrics_of(whole)
    shares = [line["prefix/share"] for line in metrics_of(whole)]
    assert shares == sorted(set(shares), reverse=True)
    assert metrics_of(whole)[-1]["resting/seen"] > metrics_of(whole)[1]["resting/seen"]
    assert (again / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
