"""What may stand for a model: Hub names, folders, runs and their checkpoints."""

import json

import pytest
from ampo_registry import ConfigError

from ampo_core.config.models import model_folder
from ampo_core.config.ready import missing_files


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """runs/done (steps 5 and 10, best 5), runs/going (step 5), runs/early (none), runs/compared, runs/world."""
    monkeypatch.chdir(tmp_path)
    for name, job, steps in [
        ("done", "train", (5, 10)),
        ("going", "train", (5,)),
        ("early", "train", ()),
        ("compared", "evaluate", ()),
        ("world", "prepare", ()),
    ]:
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(f"job: {job}\n")
        (run / "manifest.json").write_text(json.dumps({"job": job}))
        for step in steps:
            policy = run / "checkpoints" / f"step-{step:06d}" / "policy"
            policy.mkdir(parents=True)
            (policy / "config.json").write_text("{}")
            (policy.parent / "state.json").write_text("{}")
    runs = tmp_path / "runs"
    (runs / "done" / "checkpoints" / "best.json").write_text(json.dumps({"checkpoint": "step-000005"}))
    (runs / "world" / "out" / "model").mkdir(parents=True)
    (runs / "world" / "out" / "model" / "config.json").write_text("{}")
    outputs = {"done": "checkpoints/step-000010/policy", "compared": ".", "world": "out"}
    for name, output in outputs.items():
        (runs / name / "done").write_text(json.dumps({"output": output}))
    return runs


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("runs/done", "runs/done/checkpoints/step-000010/policy"),
        ("runs/done@best", "runs/done/checkpoints/step-000005/policy"),
        ("runs/done@5", "runs/done/checkpoints/step-000005/policy"),
        ("runs/going@latest", "runs/going/checkpoints/step-000005/policy"),
        ("runs/done/checkpoints/step-000005", "runs/done/checkpoints/step-000005/policy"),
        ("runs/done/checkpoints/step-000005/policy", "runs/done/checkpoints/step-000005/policy"),
        ("runs/nowhere@best", "runs/nowhere@best"),
        ("runs", "runs"),
    ],
)
def test_a_path_means_a_folder(runs, path, found):
    assert model_folder(path) == found


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("runs/going", r"runs/going is not finished.*runs/going@5 is its newest, of step 5"),
        ("runs/early", r"runs/early is not finished and has no checkpoint yet"),
        ("runs/early@best", r"runs/early has no checkpoint"),
        ("runs/going@best", r"no checkpoint is the best one"),
        ("runs/done@7", r"there is no checkpoint of step 7; found those of steps 5, 10"),
        ("runs/done@last", r"expected best, latest or a step behind the @"),
        ("runs/compared", r"runs/compared is a finished run that made no model"),
        ("runs/world", r"its start model is runs/world/out/model"),
        ("runs/world/out/model@best", r"is a model, not a run"),
    ],
)
def test_what_is_wrong_is_said(runs, path, words):
    with pytest.raises(ConfigError, match=words):
        model_folder(path)


def test_a_half_written_checkpoint_is_refused(runs):
    (runs / "going" / "checkpoints" / "step-000005" / "policy" / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"step-000005 is a checkpoint without a policy/ folder"):
        model_folder("runs/going/checkpoints/step-000005")


def test_check_says_it_before_a_run_and_train_jobs_want_the_folder_itself(runs, plugins):
    from ampo_core.config.jobs import EvaluateJob, SftJob

    def found(job, **fields):
        job = job.model_validate(fields, context={"catalog": plugins.catalog})
        return [text for path, text in missing_files(job) if path[-1] == "path" and path[0] in ("model", "models")]

    sets = {"a": {"path": "a.parquet"}}
    for path, wrong in [("runs/done", []), ("runs/going", ["runs/going is not finished"])]:
        texts = found(EvaluateJob, models={"m": {"path": path}}, evaluation={"sets": sets})
        assert [text.split(";")[0] for text in texts] == wrong
    [text] = found(SftJob, model={"path": "runs/done"}, data={"train": ["a.parquet"]})
    assert text.endswith("name the folder of its model: runs/done/checkpoints/step-000010/policy")
