"""extends, merge and overrides, seen through the loaded config."""

from pathlib import Path

import pytest
from ampo_registry.errors import ConfigError

from ampo_core.config.load import load_config
from ampo_core.config.yaml_source import parse_yaml


def test_child_merges_into_parent(load):
    loaded = load("training: {steps: 7}\n")
    assert loaded.job.training.steps == 7
    assert loaded.job.training.questions_per_batch == 4


def test_parents_path_is_relative_to_the_child(load, folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "child.yaml").write_text("extends: ../base.yaml\nrun: {name: child}\n")
    job = load_config("sub/child.yaml").job
    assert (job.run.name, job.rollout.group_size) == ("child", 4)


def test_a_changed_type_replaces_and_the_same_type_merges(load):
    parent = "guidance: {selector: {type: comprehension, mean: arithmetic, ties: dataset}}\n"
    Path("parent.yaml").write_text("extends: base.yaml\n" + parent)

    def selector(text):
        Path("child.yaml").write_text(f"extends: parent.yaml\nguidance: {{selector: {text}}}\n")
        return load_config("child.yaml").data["guidance"]["selector"]

    assert selector("{type: comprehension, ties: shorter}")["mean"] == "arithmetic"
    assert selector("{ties: shorter}")["mean"] == "arithmetic"
    assert selector("comprehension")["ties"] == "dataset"
    assert selector("length") == {"type": "length", "prefer": "short"}
    assert selector("{type: length, prefer: long}") == {"type": "length", "prefer": "long"}


def test_options_merge_into_a_plain_name(load):
    Path("parent.yaml").write_text("extends: base.yaml\nguidance: {selector: length}\n")
    Path("child.yaml").write_text("extends: parent.yaml\nguidance: {selector: {prefer: long}}\n")
    assert load_config("child.yaml").data["guidance"]["selector"] == {"type": "length", "prefer": "long"}


def test_options_without_a_type_are_those_of_the_default(load):
    data = load("", "guidance.selector.mean=arithmetic", "objective.off_policy.loss.shaping.gamma=0.2").data
    assert data["guidance"]["selector"]["type"] == "comprehension"
    assert data["objective"]["off_policy"]["loss"]["shaping"] == {"type": "ratio", "gamma": 0.2}


def test_another_type_replaces_options_given_to_the_default(load):
    Path("parent.yaml").write_text("extends: base.yaml\nguidance: {selector: {mean: arithmetic}}\n")
    Path("child.yaml").write_text("extends: parent.yaml\nguidance: {selector: random}\n")
    assert load_config("child.yaml").data["guidance"]["selector"] == {"type": "random"}


def test_null_removes_an_evaluation_set(load):
    sets = "evaluation: {sets: {a: {path: train.parquet}, b: {path: train.parquet}}}\n"
    Path("parent.yaml").write_text("extends: base.yaml\n" + sets)
    Path("child.yaml").write_text("extends: parent.yaml\nevaluation: {sets: {a: null, c: {path: train.parquet}}}\n")
    assert list(load_config("child.yaml").job.evaluation.sets) == ["b", "c"]


def test_null_turns_guidance_off_and_a_mapping_turns_it_on_again(load):
    Path("parent.yaml").write_text("extends: base.yaml\nguidance: null\n")
    assert load_config("parent.yaml").job.guidance is None
    assert load_config("parent.yaml", ["guidance.replacements=1"]).job.guidance.replacements == 1


def test_null_stays_a_value_where_it_is_one(load):
    job = load(
        "model: {chat_template_options: {enable_thinking: null}}\nobjective: {on_policy: {loss: {low: null}}}\n"
    ).job
    assert job.model.chat_template_options == {"enable_thinking": None}
    assert job.objective.on_policy.loss.low is None


def test_lists_are_replaced(load):
    Path("other.parquet").touch()
    assert load("data: {train: [other.parquet]}\n").job.data.train == ["other.parquet"]


def test_overrides_come_last_and_are_yaml(load):
    job = load(
        "training: {steps: 7}\n", "training.steps=9", "training.learning_rate=1e-4", "training.betas=[0.5, 0.6]"
    ).job
    assert (job.training.steps, job.training.learning_rate, job.training.betas) == (9, 1e-4, (0.5, 0.6))


def test_an_override_reaches_into_a_list(load):
    Path("other.parquet").touch()
    assert load("", "data.train.0=other.parquet").job.data.train == ["other.parquet"]
    loaded = load("tracking: [tensorboard, {type: wandb, project: p}]\n", "tracking.1.mode=online")
    assert [entry["type"] for entry in loaded.data["tracking"]] == ["tensorboard", "wandb"]
    assert (loaded.data["tracking"][1]["project"], loaded.data["tracking"][1]["mode"]) == ("p", "online")
    with pytest.raises(ConfigError, match=r"data\.train\.3: found item 3, but data\.train is a list of 1 item"):
        load("", "data.train.3=other.parquet")


def test_overrides_may_be_a_mapping(folder, plugins):
    loaded = load_config("base.yaml", {"training.steps": 3, "run": {"name": "x"}, "guidance": None}, plugins)
    assert (loaded.job.training.steps, loaded.job.run.name, loaded.job.guidance) == (3, "x", None)


@pytest.mark.parametrize("override", ["training.steps", "=3", "training..steps=3"])
def test_an_override_must_be_key_value(load, override):
    with pytest.raises(ConfigError, match=r"command line: .* is not KEY=VALUE"):
        load("", override)


def test_a_bad_override_names_the_command_line(load):
    with pytest.raises(ConfigError) as error:
        load("", "training.stepps=3", "rollout.group_size=many")
    assert "command line: training.stepps: no such key; did you mean steps?" in str(error.value)
    assert 'command line: rollout.group_size: found "many", expected a whole number > 0' in str(error.value)


def test_extends_in_a_circle(folder):
    Path("a.yaml").write_text("extends: b.yaml\n")
    Path("b.yaml").write_text("extends: a.yaml\njob: train\n")
    with pytest.raises(ConfigError, match=r"b\.yaml:1: extends: a\.yaml extends itself"):
        load_config("a.yaml")


def test_missing_parent_names_who_wants_it(folder):
    Path("a.yaml").write_text("job: train\nextends: nowhere.yaml\n")
    with pytest.raises(ConfigError, match=r"a\.yaml:2: extends: cannot read nowhere\.yaml"):
        load_config("a.yaml")


@pytest.mark.parametrize(
    ("text", "said"), [("", "is empty"), ("- 1\n", "expected a mapping"), ("extends: [a, b]\n", "the path of one file")]
)
def test_files_that_are_no_config(folder, text, said):
    Path("a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_config("a.yaml")


def test_the_resolved_yaml_loads_as_the_same(load):
    loaded = load("guidance: {selector: {score_rounding: {decimals: 2}}}\n")
    Path("again.yaml").write_text(loaded.yaml)
    again = load_config("again.yaml")
    assert again.data == loaded.data
    assert again.yaml == loaded.yaml
    assert parse_yaml(loaded.yaml, "again.yaml")[0].plain() == loaded.data
