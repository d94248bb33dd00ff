"""What a suite runs, in which order, and what its config may say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ampo_registry import ConfigError
from ampo_registry.discovery import Plugins

from ampo_core.config.load import LoadedConfig
from ampo_core.jobs.processes import environments
from ampo_core.jobs.suite.plan import Plan, command_line, load_task, plan_suite
from ampo_core.run.environment import Environment


@pytest.fixture
def plan(load: Callable[..., LoadedConfig], plugins: Plugins) -> Callable[..., tuple[Plan, Environment]]:
    """plan(*overrides): the plan and the environment it was made in."""

    def make(*overrides: str) -> tuple[Plan, Environment]:
        loaded = load(*overrides)
        environment = Environment.of(loaded, plugins)
        return plan_suite(loaded.job, environment), environment  # type: ignore[arg-type]

    return make


def needs(plan: Plan) -> dict[str, set[str]]:
    return {task.label: set(task.needs) for task in plan.tasks}


def test_stages_come_first_and_an_evaluation_waits_for_its_run(plan: Callable[..., Any]) -> None:
    made, _ = plan("seeds=[7]")
    assert needs(made) == {
        "world": set(),
        "evaluations/sampled/start": {"world"},
        "one": {"world"},
        "evaluations/sampled/one": {"world", "one"},
        "two": {"world", "one"},
        "evaluations/sampled/two": {"world", "two"},
        "three": {"world"},
        "evaluations/sampled/three": {"world", "three"},
    }
    assert {str(task.member.folder) for task in made.tasks if task.kind == "stage"} == {"runs/s/seed-7/world"}


def test_what_something_was_made_from_is_what_it_refers_to(plan: Callable[..., Any], folder: Path) -> None:
    made, _ = plan("seeds=[7]", "stages=[{name: world, config: world.yaml}, {name: unused, config: world.yaml}]")
    task = {task.label: task for task in made.tasks}
    assert task["two"].made_from == {"world", "one"}
    assert task["two"].needs == {"world", "one", "unused"}
    assert task["evaluations/sampled/start"].made_from == {"world"}
    assert task["unused"].made_from == set()


def test_only_the_tables_that_are_asked_for_and_what_they_need(plan: Callable[..., Any]) -> None:
    made, _ = plan("seeds=[0]", "only=[first]")
    assert [task.label for task in made.tasks if task.kind == "run"] == ["one", "two"]


def test_every_seed_has_tasks_of_its_own(plan: Callable[..., Any]) -> None:
    made, _ = plan()
    assert {task.seed for task in made.tasks} == {0, 1}
    assert len(made.tasks) == 2 * 8


def test_what_ran_before_is_filled_in_and_the_evaluated_model_has_the_runs_name(plan: Callable[..., Any]) -> None:
    made, environment = plan("seeds=[3]")
    known = made.finished[3]
    known.out |= {"world": Path("w/out"), "one": Path("one/policy")}
    task = {task.label: task for task in made.tasks}
    two = command_line(made, task["two"], environment)
    assert two[0].endswith("/sft.yaml")
    assert {'model.path="one/policy"', "run.seed=3", 'run.name="two"', 'run.dir="runs/s/seed-3"'} <= set(two)
    assert 'data.train.0="w/out/sft.parquet"' in two
    evaluation = command_line(made, task["evaluations/sampled/one"], environment)
    (models,) = [text for text in evaluation if text.startswith("models=")]
    assert '"any": null' in models
    assert '"one": {"path": "one/policy"' in models
    assert 'run.dir="runs/s/seed-3/evaluations/sampled"' in evaluation


WRONG = {
    "row": ("tables.first.rows=[ones]", "tables.first.rows.0: there is no run 'ones'; did you mean one?"),
    "baseline": ("tables.first.baseline=one", "tables.first.baseline: 'one' is no row of this table"),
    "only": ("only=[frist]", "only.0: there is no table 'frist'; did you mean first?"),
    "seeds": ("seeds=[1, 1]", "seeds: a seed stands twice"),
    "neither": ("runs.one={title: nothing}", "runs.one: give either config"),
    "both": ("runs.start.config=sft.yaml", "runs.start: give either config"),
    "a stage's name": ("runs.world=sft.yaml", "runs.world: 'world' is taken"),
    "a later run": ("runs.two.overrides={model.path: '${runs.three.out}'}", "no earlier run is named 'three'"),
    "not a run": ("runs.one=world.yaml", "runs.one: a run of a suite is a train, sft or pipeline job, and this is a"),
    "not an evaluation": ("evaluations.sampled=sft.yaml", "evaluations.sampled: an evaluation of a suite is an"),
    "an unknown name in a run's config": ("stages=[]", "${stages.world.out}: no earlier stage is named 'world'"),
    "an evaluation of another model": (
        "evaluations.sampled=fixed.yaml",
        "evaluations.sampled: an evaluation of a suite",
    ),
    "a seed of its own": ("runs.one={config: sft.yaml, overrides: {run.seed: 3}}", "run.seed is set by the suite"),
    "no table": ("only=[]", "only: "),
    "a name with a slash": ("runs.a/b=sft.yaml", "runs.a/b: a name is letters, digits, _ and -"),
}


@pytest.mark.parametrize(("override", "said"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_suite_is_refused(load: Callable[..., LoadedConfig], folder: Path, override: str, said: str) -> None:
    fixed = (folder / "evaluate.yaml").read_text().replace("${runs.this.out}", "model")
    (folder / "fixed.yaml").write_text(fixed)
    with pytest.raises(ConfigError) as caught:
        load(override)
    assert said in str(caught.value)


def test_without_an_evaluation_a_suite_warns(load: Callable[..., LoadedConfig]) -> None:
    assert any("evaluations: without an evaluation" in text for text in load("evaluations.sampled=null").warnings)


def test_each_place_has_its_share_of_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ampo_core.jobs.processes.visible_gpus", lambda environ: 5)
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments(2, {})] == ["0,1", "2,3"]
    shown = {"CUDA_VISIBLE_DEVICES": "7, 5,3,2,1"}
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments(2, shown)] == ["7,5", "3,2"]
    assert environments(1, {"A": "b"}) == [{"A": "b"}]
    with pytest.raises(ConfigError, match=r"parallel: found 6, but this machine shows 5"):
        environments(6, {})


def test_names_with_dots_are_filled_in(plan: Callable[..., Any], folder: Path) -> None:
    dotted = (folder / "evaluate.yaml").read_text().replace("level2:", "v1.5:").replace("{any:", "{qwen2.5-7b:")
    (folder / "evaluate.yaml").write_text(dotted)
    made, environment = plan("seeds=[3]")
    made.finished[3].out |= {"world": Path("w/out"), "one": Path("one/policy")}
    task = next(task for task in made.tasks if task.label == "evaluations/sampled/one")
    data = load_task(made, task, environment).data
    assert data["evaluation"]["sets"]["v1.5"]["path"] == "w/out/heldout/level2.parquet"
    assert {name: model["path"] for name, model in data["models"].items()} == {"one": "one/policy"}


def test_models_that_are_only_evaluated_must_be_there(load: Callable[..., LoadedConfig]) -> None:
    loaded = load("runs.start.model=./nowhere")
    assert any("runs.start.model: there is no model folder ./nowhere" in text for text in loaded.blockers)
