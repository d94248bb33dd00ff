"""docs/quickstart.md describes the configs and the task as they are."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from ampo_plugins.tasks.labelled_arithmetic.problems import Operation, Problem
from ampo_plugins.tasks.labelled_arithmetic.spec import LabelledArithmetic
from ampo_plugins.tasks.labelled_arithmetic.teachers import chain, cipher, terse, verbose

ROOT = Path(__file__).parents[2]
PAGE = ROOT.joinpath("docs/quickstart.md").read_text(encoding="utf-8")


def config(name: str) -> dict:
    return yaml.safe_load(ROOT.joinpath("configs", name).read_text(encoding="utf-8"))


def test_stages_and_their_jobs():
    stages = config("quickstart.yaml")["stages"]
    jobs = []
    for stage in stages:
        text = config(stage["config"])
        jobs.append((stage["name"], text.get("job") or config(f"quickstart/{text['extends']}")["job"]))
    assert re.findall(r"^\| `(\w+)` \| (\w+) \|", PAGE, re.M) == jobs


def test_numbers_of_the_configs():
    ampo, task = config("quickstart/ampo.yaml"), config("quickstart/prepare.yaml")["task"]
    warmup = config("quickstart/warmup.yaml")["training"]
    steps = LabelledArithmetic().warmup_examples * warmup["epochs"] // warmup["batch"]
    assert f"{steps:,} steps of {warmup['batch']} conversations" in PAGE
    assert config("quickstart.yaml")["at_once"] == 2
    assert PAGE.count(f"| train | {ampo['training']['steps']} steps") == 2
    assert f"{task['questions']:,} training questions" in PAGE
    assert "levels 2, 3, 4 and 5 (shares of 0.2, 0.1, 0.4 and 0.3)" in PAGE
    assert task["levels"] == {2: 0.2, 3: 0.1, 4: 0.4, 5: 0.3}
    assert ampo["objective"]["entropy_coefficient"] == 0
    assert ampo["objective"]["advantage"]["zero_without_correct"] is True
    assert ampo["guidance"]["replacements"] == 2
    assert ampo["rollout"]["group_size"] == 8
    evaluation = config("quickstart/evaluate.yaml")["evaluation"]
    assert {item["samples"] for item in evaluation["sets"].values()} == {8}
    assert evaluation["temperature"] == 1.0


def test_the_tables_of_other_pages_keep_their_worlds():
    assert config("small/warmup.yaml")["training"] == {"epochs": 4, "batch": 128}
    assert config("distillation/prepare.yaml")["task"]["levels"] == {2: 0.25, 4: 0.45, 5: 0.3}
    levels = config("small/prepare.yaml")["task"]["levels"]
    assert list(levels.items()) == [(2, 0.1), (4, 0.45), (5, 0.3), (3, 0.15)]  # they are drawn in this order
    prepare, warmup, *_ = config("quickstart_vllm.yaml")["stages"]
    assert prepare["overrides"]["task.levels"] == {2: 0.25, 3: 0, 4: 0.45, 5: 0.3}
    assert warmup["config"] == "small/warmup.yaml"


def test_numbers_of_the_task():
    spec = LabelledArithmetic()
    assert f"{spec.heldout_per_level} held-out ones" in PAGE
    assert spec.heldout_levels == [2, 3, 4, 5, 6]
    assert spec.missing == 0.25
    assert spec.step_by_step_up_to == 3


def test_the_teachers_say_what_the_page_says():
    operations = (Operation("A", "+", 5), Operation("B", "-", 3), Operation("C", "*", 2))
    problem = Problem(37, operations, printed=(2, 0, 1))
    assert f"`{problem.text}`" in PAGE
    assert f"`{chain(problem)}`" in PAGE
    assert f"`{terse(problem)}`" in PAGE
    assert len(verbose(problem)) > len(chain(problem))
    assert all(teacher.__name__ in PAGE for teacher in (verbose, cipher))
    assert cipher(problem) != chain(problem)
