"""Keys that stood elsewhere in release 0.1: each is answered with its new place, wherever it is written."""

from pathlib import Path

import pytest
import yaml
from ampo_registry.errors import ConfigError

from ampo_core.config.load import load_config
from ampo_core.config.moved import MOVED, in_keys_of_today

PLACES = {
    "objective.on_policy.clip": ([0.2, 0.28], "objective.on_policy.loss.low and .high"),
    "objective.on_policy.dual_clip": (3.0, "objective.on_policy.loss.dual"),
    "objective.on_policy.log_ratio_clamp": (20.0, "objective.on_policy.loss.log_ratio_clamp"),
    "objective.off_policy.shaping": ({"type": "ratio", "gamma": 0.2}, "objective.off_policy.loss.shaping"),
    "objective.off_policy.clip": (None, "objective.off_policy.loss.clip"),
    "objective.off_policy.behaviour": ("recorded", "objective.off_policy.loss.behaviour_policy"),
}
ON_POLICY = {"aggregator": {"type": "token"}, "weight": "unit", "mask_truncated": False, "importance_cap": None}
OFF_POLICY = {"aggregator": {"type": "seq"}, "weight": "unit"}


def nested(key, value):
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def refusal(path, plugins, *overrides):
    with pytest.raises(ConfigError) as error:
        load_config(path, overrides, plugins)
    return str(error.value)


def test_every_key_that_moved_is_here():
    assert {".".join(map(str, path)) for path in MOVED} == set(PLACES)


@pytest.mark.parametrize("key", PLACES)
def test_in_a_file_in_one_that_it_extends_and_on_the_command_line(key, folder, plugins):
    value, place = PLACES[key]
    folder.joinpath("old.yaml").write_text(yaml.safe_dump({"extends": "base.yaml", **nested(key, value)}))
    folder.joinpath("child.yaml").write_text("extends: old.yaml\ntraining: {steps: 3}\n")
    for name in ("old.yaml", "child.yaml"):
        said = refusal(name, plugins)
        assert said.startswith("old.yaml:")
        assert f"{key}: moved to {place}" in said
    assert refusal("base.yaml", plugins, f"{key}={value}") == refusal("base.yaml", plugins, f"{key}=null")
    assert f"command line: {key}: moved to {place}" in refusal("base.yaml", plugins, f"{key}=null")


@pytest.mark.parametrize("key", PLACES)
@pytest.mark.parametrize("whole", [True, False])
def test_in_the_overrides_of_a_pipeline_and_of_a_suite(key, whole, folder, plugins):
    value, place = PLACES[key]
    block, _, name = key.rpartition(".")
    overrides = {key: value} if whole else {block: {name: value}}
    jobs = {
        "pipeline": {"stages": [{"name": "rl", "config": "base.yaml", "overrides": overrides}]},
        "suite": {"seeds": [0], "runs": {"rl": {"config": "base.yaml", "overrides": overrides}}},
    }
    for job, entries in jobs.items():
        Path(f"{job}.yaml").write_text(yaml.safe_dump({"job": job, "run": {"name": "all"}, **entries}))
        said = refusal(f"{job}.yaml", plugins)
        assert f"{job}.yaml" in said
        assert f"{key}: moved to {place}" in said


def test_a_key_below_one_that_moved_is_answered_too(folder, plugins):
    for override in ("objective.off_policy.shaping.gamma=0.2", "objective.on_policy.clip.1=0.3"):
        key = override.partition("=")[0]
        said = refusal("base.yaml", plugins, override)
        assert f"command line: {key}: {key.rpartition('.')[0]}: moved to " in said


@pytest.mark.parametrize(
    ("on_policy", "off_policy", "overrides"),
    [
        ({"clip": [0.2, 0.2]}, {"shaping": {"type": "ratio", "gamma": 0.1}}, ()),
        (
            {"clip": None},
            {"shaping": {"type": "log_prob", "weight": 0.1}},
            ("low=null", "high=null", "shaping=log_prob"),
        ),
        (
            {"clip": [0.1, 0.28], "dual_clip": 3.0, "log_ratio_clamp": 5.0},
            {"shaping": {"type": "identity"}, "clip": [0.1, 0.2], "behaviour": "recorded"},
            (
                *("low=0.1", "high=0.28", "dual=3", "log_ratio_clamp=5"),
                *("shaping=identity", "clip=[0.1, 0.2]", "behaviour_policy=recorded"),
            ),
        ),
    ],
)
@pytest.mark.parametrize("guided", [True, False])
def test_an_old_resolved_config_in_keys_of_today_is_what_the_new_keys_resolve_to(
    load, on_policy, off_policy, overrides, guided
):
    on_options = ("low", "high", "dual", "log_ratio_clamp")
    settings = [f"objective.{'on' if o.split('=')[0] in on_options else 'off'}_policy.loss.{o}" for o in overrides]
    today = load("" if guided else "guidance: null\n", *settings).data
    old = {**today, "objective": {**today["objective"]}}
    del old["objective"]["auxiliary"]
    if guided:
        old["guidance"] = {name: value for name, value in today["guidance"].items() if name != "intervention"}
    old["objective"]["on_policy"] = {**ON_POLICY, "dual_clip": None, "log_ratio_clamp": None, **on_policy}
    old["objective"]["off_policy"] = {**OFF_POLICY, "clip": None, "behaviour": "one", **off_policy}
    fresh, notes = in_keys_of_today(old)
    assert fresh == today
    assert [note.partition(":")[0] for note in notes] == list(PLACES)
    assert in_keys_of_today(today) == (today, ())
