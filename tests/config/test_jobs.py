"""What a job says of itself."""

import ast
from pathlib import Path

import pytest
from ampo_registry.errors import ConfigError

import ampo_core
from ampo_core.config.jobs import JOBS

MODEL = "model: {path: model, dtype: float32}\ndeepspeed: {zero_stage: 0}\ndata: {train: [train.parquet]}\n"
SETS = "rollout: transformers\nevaluation: {sets: {a: {path: train.parquet}}}\n"
TEXTS = {
    "train": "",
    "sft": f"job: sft\n{MODEL}",
    "evaluate": f"job: evaluate\nmodels: {{m: {{path: model}}}}\n{SETS}",
    "prepare": "job: prepare\ntask: labelled_arithmetic\n",
    "pool": "job: pool\nquestions: [train.parquet]\nstudent: {path: model}\nteachers: [{name: a, recorded: a}]\n",
    "pipeline": "job: pipeline\nstages: [{name: a, config: base.yaml}]\n",
    "suite": "job: suite\nruns: {a: base.yaml}\n",
}
OVER = "what was written stands in runs/run, without a checkpoint: the same command starts over"
KEPT = "what was written stands in runs/run; run the same command again, and what is finished is kept"
LEFT = {
    "train": OVER,
    "sft": OVER,
    "evaluate": "what was sampled stands in runs/run: run the same command again to go on with the rest",
    "prepare": OVER,
    "pool": "finished shards stand in runs/run/shards: run the same command again to go on with the others",
    "pipeline": KEPT,
    "suite": KEPT,
}


@pytest.mark.parametrize("name", JOBS)
def test_an_interrupted_run_says_what_it_has_left(name, load, folder):
    job = load(TEXTS[name]).job
    assert job.left_behind() == LEFT[name]
    for step in ("step-000005", "step-000010"):
        (folder / "runs" / "run" / "checkpoints" / step).mkdir(parents=True)
    last = "the last checkpoint is runs/run/checkpoints/step-000010: run the same command again to go on after it"
    assert job.left_behind() == (last if name in ("train", "sft") else LEFT[name])


@pytest.mark.parametrize("name", JOBS)
def test_where_a_job_may_stand(name, load):
    job = load(TEXTS[name]).job
    refused = {place for place in ("stages", "runs", "evaluations") if job.misplaced(place) is not None}
    allowed = {"train": {"stages", "runs"}, "sft": {"stages", "runs"}, "pipeline": {"runs"}, "suite": set()}
    assert refused == {"stages", "runs", "evaluations"} - allowed.get(name, {"stages"})


def test_an_evaluation_of_a_suite_samples_one_model_that_the_suite_names(load):
    def fits(models):
        return load(f"job: evaluate\nmodels: {models}\n{SETS}").job.misplaced("evaluations") is None

    assert fits("{m: {path: '${runs.this.out}'}}")
    assert not fits("{m: {path: '${runs.other.out}'}}")
    assert not fits("{m: {path: '${runs.this.out}'}, n: {path: '${runs.this.out}'}}")


def test_a_suite_among_stages_is_refused_for_what_it_is(load, folder):
    text = "job: suite\nruns: {a: base.yaml, b: {config: base.yaml, overrides: {model.path: '${runs.a.out}'}}}\n"
    (folder / "suite.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load("job: pipeline\nstages: [{name: a, config: suite.yaml}]\n")
    assert str(error.value) == "c.yaml:2: stages.0: a stage cannot be a suite"


def test_nobody_asks_a_job_for_its_class():
    asked = []
    for path in Path(ampo_core.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
                names = {leaf.id for leaf in ast.walk(node.args[1]) if isinstance(leaf, ast.Name)}
                asked += [f"{path}:{node.lineno}"] if any(name.endswith("Job") for name in names) else []
    assert asked == []
