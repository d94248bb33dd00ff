"""Nothing is taken for something else than what was written; paths, names and seeds are what the machine can take."""

import json
import os
from pathlib import Path

import pytest
from ampo_registry.errors import ConfigError

from ampo_core.config import load as load_module
from ampo_core.config.load import load_config
from ampo_core.config.values import written_path

LONG = "a" * 300
PIPELINE = "job: pipeline\nstages: [{name: a, config: base.yaml}]\n"
SUITE = "job: suite\nruns: {a: base.yaml}\n"
PREPARE = "job: prepare\ntask: labelled_arithmetic\n"
EVALUATE = """job: evaluate
models: {start: {path: model}}
rollout: transformers
evaluation: {sets: {a: {path: train.parquet}}}
"""
POOL = "job: pool\nquestions: [train.parquet]\nstudent: {path: model}\nteachers: [{name: t, recorded: t}]\n"

NOT_A_ONE = {
    "zero_stage": ("deepspeed.zero_stage=true", "deepspeed.zero_stage: found true, expected one of 0, 1, 2, 3"),
    "as a fraction": ("deepspeed.zero_stage=1.0", "deepspeed.zero_stage: found 1.0, expected one of 0, 1, 2, 3"),
    "ahead": ("rollout.ahead=false", "rollout.ahead: found false, expected one of 0, 1"),
    "ddof": (
        "objective.advantage={type: group_normalized, ddof: true}",
        "objective.advantage.ddof: found true, expected one of 0, 1",
    ),
}


@pytest.mark.parametrize(("override", "said"), NOT_A_ONE.values(), ids=NOT_A_ONE.keys())
def test_true_is_not_1(load, override, said):
    with pytest.raises(ConfigError) as error:
        load("", override)
    assert str(error.value) == f"command line: {said}"


def test_a_level_is_written_as_a_whole_number(load):
    with pytest.raises(ConfigError, match=r"task\.levels\.02: found the key 02, expected a whole number as it is usu"):
        load(PREPARE, "task={type: labelled_arithmetic, levels: {02: 0.5, 2: 0.5}}")
    loaded = load(PREPARE, "task={type: labelled_arithmetic, levels: {2: 1, 3: 0.5}}")
    assert loaded.data["task"]["levels"] == {"2": 1.0, "3": 0.5}


PLACES = {
    "run.dir": ("", "run.dir={}"),
    "model.path": ("", "model.path={}"),
    "model.chat_template": ("", "model.chat_template={}"),
    "data.train.0": ("", "data.train=[{}]"),
    "resources.hostfile": ("", "resources.hostfile={}"),
    "evaluation.sets.a.path": (EVALUATE, "evaluation.sets.a.path={}"),
    "predictions.0": (EVALUATE, "predictions=[{}]"),
    "comparison.curves.c": (EVALUATE, "comparison.curves.c={}"),
    "models.start.path": (EVALUATE, "models.start.path={}"),
    "out": (PREPARE, "out={}"),
    "questions.0": (POOL, "questions=[{}]"),
    "student.path": (POOL, "student.path={}"),
    "stages.0.config": (PIPELINE, "stages.0.config={}"),
    "runs.a": (SUITE, "runs.a={}"),
    "runs.a.config": (SUITE, "runs.a={{config: {}}}"),
    "runs.a.model": (SUITE, "runs.a={{model: {}}}"),
    "evaluations.e": (SUITE, "evaluations.e={}"),
}
BAD_PATHS = {
    "NUL": ('"a\\0b"', "a path cannot hold the character NUL"),
    "HOME": ("$HOME/x", "environment variables are not filled in here, found $HOME; write ~ for the home folder"),
    "variable": ('"a/${DATA}/x"', "found ${DATA}; write the path itself"),
    "long": (LONG, "a name of 300 bytes stands in it, and file systems take 255 at most"),
    "long in bytes": ("ü" * 150, "a name of 300 bytes"),
    "deep": ("a/" * 2500, "a path of more than 4095 bytes"),
    "user": ("~nobody-of-that-name/x", "there is no home folder ~nobody-of-that-name"),
}


@pytest.mark.parametrize(("key", "place"), list(PLACES.items()), ids=PLACES.keys())
@pytest.mark.parametrize(("path", "said"), BAD_PATHS.values(), ids=BAD_PATHS.keys())
def test_paths_that_no_file_system_takes(load, key, place, path, said):
    text, override = place
    if said.startswith("there is no home") and key.startswith(("stages", "runs", "evaluations")):
        pytest.skip("an absolute path by then")
    with pytest.raises(ConfigError) as error:
        load(text, override.format(path))
    assert f"command line: {key}: " in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize("key", sorted(PLACES.keys() - {"evaluations.e"}))
def test_the_home_folder_is_filled_in(load, folder, monkeypatch, key):
    monkeypatch.setenv("HOME", str(folder))
    for name in ("base.yaml", "x"):
        (folder / name).write_text((folder / "base.yaml").read_text())
    text, override = PLACES[key]
    path = "~/base.yaml" if key.startswith(("stages", "runs")) else "~/train.parquet"
    try:
        shown = json.dumps(load(text, override.format(path)).data)
    except ConfigError as error:  # what stands there is of another kind, which is said of the whole path
        shown = str(error)
    assert str(folder / path[2:]) in shown
    assert "~" not in shown


def test_a_parent_may_lie_in_the_home_folder(load, folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    Path("c.yaml").write_text("extends: ~/base.yaml\nrun: {name: x}\n")
    assert load_config("c.yaml").job.run.name == "x"
    for path, said in BAD_PATHS.values():
        Path("c.yaml").write_text(f"extends: {path}\n")
        with pytest.raises(ConfigError, match=r"c\.yaml:1: extends: ") as error:
            load_config("c.yaml")
        assert said in str(error.value)


@pytest.mark.parametrize(
    "text", ["runs", "./~x", "a b/ü.parquet", "/data/a$/x", "a100%.jsonl", "${stages.a.out}/x", "a@5"]
)
def test_paths_stay_as_they_are(text):
    assert written_path(text) == text


@pytest.mark.parametrize(
    ("text", "override", "key"),
    [
        ("", f"run.name={LONG}", "run.name"),
        (PIPELINE, f"stages.0.name={LONG}", "stages.0.name"),
        (SUITE, f"runs={{{LONG}: base.yaml}}", f"runs.{LONG}"),
        (SUITE, f"tables={{{LONG}: {{rows: [a]}}}}", f"tables.{LONG}"),
        (SUITE, f"evaluations={{{LONG}: base.yaml}}", f"evaluations.{LONG}"),
        (EVALUATE, f"models={{{LONG}: {{path: model}}}}", f"models.{LONG}"),
        (EVALUATE, f"evaluation.sets={{{LONG}: {{path: train.parquet}}}}", f"evaluation.sets.{LONG}"),
        (POOL, f"teachers.0.name={LONG}", "teachers.0.name"),
        (POOL, f"compositions={{{LONG}: [t]}}", f"compositions.{LONG}"),
    ],
)
def test_names_that_become_files_are_short(load, text, override, key):
    with pytest.raises(ConfigError, match=rf"(?m)^command line: {key}: .*at most [12]00\b"):
        load(text, override)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_are_those_that_generators_take(load, seed):
    for text, override, key in (("", f"run.seed={seed}", "run.seed"), (SUITE, f"seeds=[0, {seed}]", "seeds.1")):
        with pytest.raises(ConfigError) as error:
            load(text, override)
        said = f"{key}: found {seed}, expected a whole number >= 0 and <= {2**64 - 1}"
        assert said in str(error.value)
    assert load("", f"run.seed={2**64 - 1}").job.run.seed == 2**64 - 1


def test_a_surrogate_is_no_character(load):
    with pytest.raises(ConfigError, match=r"c\.yaml:2: run\.name: holds half of a surrogate pair"):
        load('run: {name: "a\\ud800"}\n')
    with pytest.raises(ConfigError, match=r"command line: run\.name: not valid YAML: the character '\\udc80'"):
        load("", "run.name=a\udc80")


def test_a_config_that_no_file_can_be(folder):
    with pytest.raises(ConfigError, match=r"no file can be named 'a\\x00b'"):
        load_config("a\0b")
    os.symlink("circle.yaml", "circle.yaml")
    with pytest.raises(ConfigError, match=r"cannot read circle\.yaml"):
        load_config("circle.yaml")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("RUN.NAME=x", "RUN.NAME: RUN: no such key; did you mean run?"),
        ("run.name.first=x", 'run.name.first: run.name: found {"first": "x"}, expected text'),
        ("data.train.5=x", "data.train.5: found item 5, but data.train is a list of 1 item(s), counted from 0"),
        ("data.train.x=x", "data.train.x: found item x, but data.train is a list of 1 item(s)"),
        (f"data.train.{'9' * 5000}=x", "data.train is a list of 1 item(s)"),
        ("guidance.trigger=ADAPTIVE", "guidance.trigger: no trigger is named 'ADAPTIVE'; did you mean adaptive?"),
        ("model.dtype=BFloat16", 'model.dtype: found "BFloat16", expected one of float32, bfloat16; did you mean bf'),
        ("guidance.Threshold=0.5", "guidance.Threshold: no such key; did you mean threshold?"),
        ("job.x=1", 'job.x: job: found {"x": 1}, expected train'),
        ("extends=base.yaml", "extends: only a file can extend another one"),
        ("training.learning_rate=.nan", "training.learning_rate: .nan is not a finite number"),
        ("training.betas=[0.9, .inf]", "training.betas.1: .inf is not a finite number"),
        (".".join("a" * 900) + "=1", "is nested too deeply: 900 keys in each other"),
        ("run.name=[1", "run.name: not valid YAML: "),
    ],
)
def test_an_override_is_named_as_it_was_written(load, override, said):
    with pytest.raises(ConfigError) as error:
        load("", override)
    assert str(error.value).startswith("command line: ")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extend: base.yaml\n", "c.yaml:1: extend: no such key; did you mean extends?"),
        ("run: {}\njobs: train\n", "c.yaml:2: jobs: no such key; did you mean job?"),
        ("JOB: train\n", "c.yaml:1: JOB: no such key; did you mean job?"),
    ],
)
def test_a_job_that_is_missing_for_a_typo(folder, text, said):
    Path("c.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config("c.yaml")
    assert str(error.value) == said


def test_an_override_that_stands_twice_is_said(load):
    loaded = load("", "training.steps=3", "training.steps=4")
    assert loaded.job.training.steps == 4
    assert loaded.warnings == ("command line: training.steps: stands twice; the last one counts",)
    assert load("", "training.steps=3", "training.steps=3").warnings == ()


ENVIRONMENTS = {
    "RANK is no number": (
        {"RANK": "abc", "WORLD_SIZE": "2"},
        "environment: RANK: found 'abc', expected a whole number",
    ),
    "RANK is empty": ({"RANK": "", "WORLD_SIZE": "2"}, "environment: RANK: found '', expected a whole number"),
    "WORLD_SIZE is no number": ({"RANK": "0", "WORLD_SIZE": "abc"}, "environment: WORLD_SIZE: found 'abc', expected"),
    "RANK alone": ({"RANK": "0"}, "environment: RANK: found '0' without WORLD_SIZE"),
    "WORLD_SIZE alone": ({"WORLD_SIZE": "2"}, "environment: WORLD_SIZE: found '2' without RANK"),
    "RANK too large": ({"RANK": "2", "WORLD_SIZE": "2"}, "environment: RANK: found 2 with WORLD_SIZE 2"),
    "LOCAL_RANK": ({"LOCAL_RANK": "-1"}, "environment: LOCAL_RANK: found '-1', expected a whole number"),
    "LOCAL_WORLD_SIZE": ({"LOCAL_WORLD_SIZE": "two"}, "environment: LOCAL_WORLD_SIZE: found 'two', expected"),
}


@pytest.mark.parametrize(("variables", "said"), ENVIRONMENTS.values(), ids=ENVIRONMENTS.keys())
@pytest.mark.parametrize("text", ["", PREPARE])
def test_what_a_launcher_says_is_checked(load, monkeypatch, variables, said, text):
    for name in ("RANK", "WORLD_SIZE", "AMPO_ALONE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    loaded = load(text)
    assert loaded.blockers[0].startswith(said)
    with pytest.raises(ConfigError):
        loaded.require_ready()


def test_a_megabyte_of_json_is_read_once_and_in_one_pass(load, monkeypatch):
    read = []
    monkeypatch.setattr(load_module, "dump_yaml", lambda data: read.append(data) or "")
    many = {f"key{i}": [i, "text", 0.5, True, None] for i in range(4000)}
    loaded = load(f"model: {{chat_template_options: {json.dumps(many)}}}\n")
    assert loaded.job.model.chat_template_options == many
    assert read == []
