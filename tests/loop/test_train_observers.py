"""What observers measure are metrics of the step, and what may not be one is reported once and left out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from ampo_registry import PluginError, RunContext
from ampo_registry.discovery import discover
from ampo_registry.testing import example_step

from tests.loop.worlds import metrics_of, run, train

MEASURING = """
from ampo_registry import hookimpl


@hookimpl
def ampo_step_finished(report, context):
    context.log("mine/step", report.step)
    context.log("mine/step", report.step + 1)
    return {"mine/groups": len(report.groups), "mine/falling": -report.step}
"""
FAULTY = """
from ampo_registry import hookimpl


@hookimpl
def ampo_run_started(context):
    context.log("mine/early", 1.0)


@hookimpl
def ampo_step_finished(report):
    if report.step == 1:
        return {"mine/fine": 1, "bare": 2.0, "reward/mine": 1.0, "mine/nan": float("nan"), "mine/word": "3", 4: 5.0}
    return {"mine/nan": float("nan"), "mine/step": 0.0}


@hookimpl
def ampo_run_finished(context):
    context.log("mine/late", 1.0)
"""
WRITING = """
from ampo_registry import hookimpl


@hookimpl
def ampo_step_finished(report, context):
    report.metrics["writing/x"] = 1.0
"""
LISTING = """
from ampo_registry import hookimpl


@hookimpl
def ampo_step_finished(report):
    return [report.step]
"""


QUIET = """
from ampo_registry import hookimpl


@hookimpl
def ampo_run_started():
    raise RuntimeError("called although it is off")


@hookimpl
def ampo_step_finished():
    return {"quiet/x": 1.0}


@hookimpl
def ampo_run_finished():
    raise RuntimeError("called although it is off")
"""
OBSERVERS = {"measuring": MEASURING, "faulty": FAULTY, "writing": WRITING, "listing": LISTING, "quiet": QUIET}


@pytest.mark.process
def test_observers_metrics_reach_the_run_and_their_faults_a_person(world: Path, student: Path, tmp_path: Path) -> None:
    files = []
    for name, code in OBSERVERS.items():
        files.append(tmp_path / f"{name}_observer.py")
        files[-1].write_text(code, encoding="utf-8")
    found, said = discover(files), list[str]()
    found.report = said.append
    config = train(world, student, tracking=["tensorboard"], checkpoint={"every": 1, "best": "mine/falling", "keep": 1})
    config["observers"] = {"quiet_observer": False, "measuring_observer": True}
    policy, screen = run(config, tmp_path, found)
    lines = metrics_of(policy)
    own = [{name: line[name] for name in line if name.startswith(("mine/", "writing/"))} for line in lines]
    assert not any("quiet/x" in line for line in lines)
    assert yaml.safe_load((policy.parents[2] / "config.yaml").read_text("utf-8"))["observers"] == config["observers"]
    assert own == [
        {"mine/step": 1.5, "mine/groups": 6.0, "mine/falling": -1.0, "mine/fine": 1.0},
        # both have measured it: the mean, as where two hooks of a step log one name
        {"mine/step": pytest.approx((2 + 3 + 0) / 3), "mine/groups": 6.0, "mine/falling": -2.0},
        {"mine/step": pytest.approx((3 + 4 + 0) / 3), "mine/groups": 6.0, "mine/falling": -3.0},
    ]
    best = json.loads((policy.parents[1] / "best.json").read_text("utf-8"))
    assert (best["metric"], best["value"], best["step"]) == ("mine/falling", -1.0, 1)
    folder = policy.parents[2]
    assert "mine/groups" in (folder / "report.html").read_text("utf-8")
    assert b"mine/groups" in b"".join(path.read_bytes() for path in (folder / "tensorboard").iterdir())
    assert "done: " in screen
    for about in (
        "ampo_run_started failed: faulty_observer of .*'mine/early' belongs to no step",
        "ampo_step_finished failed: faulty_observer of .*the metric 'bare' needs a name of its own",
        "ampo_step_finished failed: faulty_observer of .*the metric 'reward/mine' needs a name of its own",
        "ampo_step_finished failed: faulty_observer of .*the metric 'mine/nan' is nan, expected a finite number",
        "ampo_step_finished failed: faulty_observer of .*the metric 'mine/word' is '3', expected a finite number",
        "ampo_step_finished failed: faulty_observer of .*the name of a metric must be a text .*; found 4",
        "ampo_run_finished failed: faulty_observer of .*'mine/late' belongs to no step",
        "ampo_step_finished failed: writing_observer of .*TypeError: .*does not support item assignment",
        "ampo_step_finished failed: listing_observer of .*must return a mapping of names to numbers, or None; found",
    ):
        matching = [line for line in said if re.search(about, line)]
        assert len(matching) == 1, about
        said.remove(matching[0])
    assert said == []


def test_a_name_that_the_step_has_already_is_refused() -> None:
    context = RunContext("demo", Path(), "train", 0, {})
    context.step_log.begin({"retry/accuracy"})
    with pytest.raises(PluginError, match="the step has a metric 'retry/accuracy' already"):
        context.log("retry/accuracy", 1.0)
    context.log("mine/x", 1.0)
    assert context.step_log.end() == {"mine/x": 1.0}
    with pytest.raises(PluginError, match="belongs to no step: an observer logs in ampo_step_finished"):
        context.log("mine/x", 1.0)


class Odd:
    def __float__(self) -> float:
        raise RuntimeError("not one")


@pytest.mark.parametrize("value", ["abc", "1.5", None, [1.0], Odd()], ids=["text", "digits", "none", "list", "odd"])
def test_what_is_no_number_is_refused_in_words(value: object) -> None:
    with pytest.raises(PluginError, match=r"^log: the metric 'x/y' is .*, expected a finite number$"):
        example_step().log("x/y", value)  # type: ignore[arg-type]
