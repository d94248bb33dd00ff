"""The `pipeline` job: order, references, what is run again and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from ampo_registry import ConfigError, DataError, RunError

from ampo_core.config.jobs import Job, PrepareJob
from ampo_core.config.load import load_config
from ampo_core.jobs import members, pipeline, sft
from ampo_core.run.environment import Environment
from ampo_core.run.folder import RunFolder
from ampo_core.run.manifest import build_manifest
from ampo_core.run.resume import start_over

PREPARE = "job: prepare\ntask: {type: labelled_arithmetic, questions: 12, heldout_per_level: 2, warmup_examples: 20}\n"
SFT = """\
job: sft
model: {path: "${stages.world.out}/model", dtype: float32, gradient_checkpointing: false}
data: {train: ["${stages.world.out}/sft.parquet"], format: messages}
training: {epochs: 1, batch: 10, accumulation: 1}
deepspeed: {zero_stage: 0}
resources: {threads: 1}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "world.yaml").write_text(PREPARE)
    (tmp_path / "tune.yaml").write_text(SFT)
    return tmp_path


@pytest.fixture
def run_pipeline(folder: Path, environment_of: Callable[..., Any]) -> Callable[..., str]:
    """(stages as YAML) -> what was printed."""

    def run(*stages: str, seed: int = 0) -> str:
        lines = "".join(f"  - {{{stage}}}\n" for stage in stages)
        (folder / "all.yaml").write_text(
            f"job: pipeline\nrun: {{name: p, dir: {folder}, seed: {seed}}}\nstages:\n{lines}"
        )
        job, environment = environment_of(folder / "all.yaml")
        assert pipeline.run(job, environment) == folder / "p"
        printed: str = environment.console.file.getvalue()
        return printed

    return run


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file in `folder` with what is in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Stages:
    """Stands in for the jobs: writes a run folder as they do, and fails where it is told to."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.failing: set[str] = set()
        self.refusing: set[str] = set()
        self.configs: dict[str, Any] = {}

    def __call__(self, job: Job, environment: Environment) -> Path:
        assert isinstance(job, PrepareJob)
        if job.run.name in self.refusing:
            raise DataError("no rows")
        self.ran.append(job.run.name)
        self.configs[job.run.name] = environment.config
        start_over(job.run.folder, environment)
        folder = RunFolder.create(job.run, environment.yaml, build_manifest(job="prepare", seed=0, plugins={}))
        if job.run.name in self.failing:
            (folder.path / "half-written").touch()
            raise RunError("it broke")
        out = folder.path / "out"
        out.mkdir()
        return folder.finish(out)


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    stages = Stages()
    monkeypatch.setattr(pipeline, "run_job", stages)
    return stages


A, B = "name: a, config: world.yaml", "name: b, config: world.yaml"
B_FROM_A = 'name: b, config: world.yaml, overrides: {out: "${stages.a.out}/more", run.seed: 5}'


def test_stages_run_in_order_inside_the_pipelines_folder(
    run_pipeline: Callable[..., str], stages: Stages, folder: Path
) -> None:
    run_pipeline(A, B_FROM_A)
    assert stages.ran == ["a", "b"]
    assert {path.name for path in (folder / "p").iterdir()} == {
        "a",
        "b",
        "config.yaml",
        "manifest.json",
        "done",
        "report.html",
    }
    assert stages.configs["b"]["out"] == f"{folder}/p/a/out/more"
    assert stages.configs["b"]["run"] == {"name": "b", "dir": f"{folder}/p", "seed": 5}


def test_the_seed_is_that_of_the_stages_unless_they_say_another(
    run_pipeline: Callable[..., str], stages: Stages
) -> None:
    run_pipeline(A, B_FROM_A, seed=7)
    assert (stages.configs["a"]["run"]["seed"], stages.configs["b"]["run"]["seed"]) == (7, 5)
    with pytest.raises(ConfigError, match=r"run\.seed: 7 -> 8"):
        run_pipeline(A, B_FROM_A, seed=8)


def test_references_in_a_stages_own_config_are_replaced(
    run_pipeline: Callable[..., str], stages: Stages, folder: Path
) -> None:
    (folder / "b.yaml").write_text(PREPARE + 'out: "${stages.a.run}/beside"\n')
    run_pipeline(A, "name: b, config: b.yaml")
    assert stages.configs["b"]["out"] == f"{folder}/p/a/beside"


def test_a_config_without_references_is_resolved_once(
    run_pipeline: Callable[..., str], stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def counted(path: Path, *arguments: Any, **named: Any) -> Any:
        read.append(path)
        return load_config(path, *arguments, **named)

    monkeypatch.setattr(members, "load_config", counted)
    run_pipeline(A)
    assert len(read) == 1
    run_pipeline(A)
    assert len(read) == 2  # compared with what is finished, and not run


def test_finished_stages_are_not_run_again(run_pipeline: Callable[..., str], stages: Stages) -> None:
    run_pipeline(A, B)
    printed = run_pipeline(A, B)
    assert stages.ran == ["a", "b"]
    assert "stage 1/2 a: finished already" in printed
    assert "stage 2/2 b: finished already" in printed


def test_an_unfinished_stage_starts_over(run_pipeline: Callable[..., str], stages: Stages, folder: Path) -> None:
    stages.failing = {"b"}
    with pytest.raises(RunError, match="it broke"):
        run_pipeline(A, B)
    assert (folder / "p" / "b" / "half-written").exists()
    assert (folder / "p" / "report.html").exists()
    assert not (folder / "p" / "done").exists()
    stages.failing = set()
    run_pipeline(A, B)
    assert stages.ran == ["a", "b", "b"]
    assert not (folder / "p" / "b" / "half-written").exists()
    assert (folder / "p" / "done").exists()


def test_a_later_stage_can_be_added(run_pipeline: Callable[..., str], stages: Stages) -> None:
    run_pipeline(A)
    run_pipeline(A, B_FROM_A)
    assert stages.ran == ["a", "b"]


def test_a_changed_config_of_a_finished_stage_is_refused_with_the_difference(
    run_pipeline: Callable[..., str], stages: Stages, folder: Path
) -> None:
    run_pipeline(A, B)
    (folder / "world.yaml").write_text(PREPARE.replace("questions: 12", "questions: 13"))
    before = files_of(folder / "p")
    with pytest.raises(ConfigError, match=r"stage a is finished in .*changed since:\n  task\.questions: 12 -> 13\n"):
        run_pipeline(A, B)
    assert stages.ran == ["a", "b"]
    assert files_of(folder / "p") == before


def test_a_finished_stage_made_from_an_earlier_run_is_refused(
    run_pipeline: Callable[..., str], stages: Stages, folder: Path
) -> None:
    run_pipeline(A, B_FROM_A)
    (folder / "p" / "a" / "done").unlink()
    with pytest.raises(ConfigError, match=r"stage b in .* was made from an earlier run of a, which is to run again"):
        run_pipeline(A, B_FROM_A)
    assert stages.ran == ["a", "b"]


@pytest.mark.parametrize("failing", [set(), {"b"}])
@pytest.mark.parametrize(
    "others",
    [
        pytest.param(("name: c, config: world.yaml",), id="other names"),
        pytest.param((A,), id="a stage fewer"),
        pytest.param((A, "name: b, config: other.yaml"), id="another config"),
    ],
)
def test_another_pipelines_folder_is_refused_and_left_alone(
    others: tuple[str, ...], failing: set[str], run_pipeline: Callable[..., str], stages: Stages, folder: Path
) -> None:
    (folder / "other.yaml").write_text(PREPARE.replace("questions: 12", "questions: 13"))
    stages.failing = failing
    with pytest.raises(RunError) if failing else nullcontext():
        run_pipeline(A, B)
    before = files_of(folder / "p")
    stages.failing = set()
    with pytest.raises(ConfigError, match=r"holds another pipeline|config has changed since"):
        run_pipeline(*others)
    assert files_of(folder / "p") == before
    assert stages.ran == ["a", "b"]


def test_an_unfinished_run_of_somebody_else_is_not_removed(
    run_pipeline: Callable[..., str], stages: Stages, folder: Path
) -> None:
    run_pipeline(A)
    (folder / "p" / "b").mkdir()
    (folder / "p" / "b" / "config.yaml").write_text("job: train\n")
    with pytest.raises(ConfigError, match="holds an unfinished run"):
        run_pipeline(A, B)
    assert (folder / "p" / "b" / "config.yaml").exists()


def test_a_stage_that_is_refused_after_others_ran_is_a_failure(
    run_pipeline: Callable[..., str], stages: Stages
) -> None:
    stages.refusing = {"b"}
    with pytest.raises(RunError, match=r"stage b, after a had run:\nno rows"):
        run_pipeline(A, B)
    with pytest.raises(DataError, match="no rows"):
        run_pipeline(A, B)
    assert stages.ran == ["a"]


def test_a_stage_whose_input_is_missing_after_others_ran_is_a_failure(
    run_pipeline: Callable[..., str], stages: Stages, folder: Path
) -> None:
    (folder / "tune.yaml").write_text(SFT.replace("stages.world", "stages.a"))
    with pytest.raises(RunError, match=r"stage b, after a had run:\n.*there is no model folder"):
        run_pipeline(A, "name: b, config: tune.yaml")


@pytest.mark.process
def test_an_interrupted_prepare_with_an_out_of_its_own_starts_over(
    run_pipeline: Callable[..., str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    stage = f"name: a, config: world.yaml, overrides: {{out: {folder}/data}}"
    with monkeypatch.context() as patch:
        patch.setattr("ampo_core.jobs.prepare.write_data", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_pipeline(stage)
    run_pipeline(stage)
    assert (folder / "data" / "train.parquet").exists()


def test_a_folder_of_another_run_is_refused(run_pipeline: Callable[..., str], stages: Stages, folder: Path) -> None:
    (folder / "p").mkdir()
    (folder / "p" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        run_pipeline(A)
    assert (folder / "p" / "notes.txt").read_text() == "mine"


def test_a_strangers_folder_in_a_stages_place_is_left_alone(
    run_pipeline: Callable[..., str], stages: Stages, folder: Path
) -> None:
    run_pipeline(A)
    (folder / "p" / "b").mkdir()
    (folder / "p" / "b" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        run_pipeline(A, B)
    assert (folder / "p" / "b" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("where", ["overrides", "config"])
@pytest.mark.parametrize("reference", ["${stages.b.out}", "${stages.nobody.out}", "${stages.a.output}"])
def test_a_wrong_reference_is_refused_before_anything_runs(
    reference: str, where: str, run_pipeline: Callable[..., str], stages: Stages, folder: Path
) -> None:
    (folder / "b.yaml").write_text(PREPARE + (f'out: "{reference}"\n' if where == "config" else ""))
    overrides = f', overrides: {{out: "{reference}"}}' if where == "overrides" else ""
    with pytest.raises(ConfigError, match=r"no earlier stage is named|is not of the form"):
        run_pipeline(A, f"name: b, config: b.yaml{overrides}")
    assert stages.ran == []


@pytest.mark.process
def test_real_stages_share_a_process_and_go_on_where_they_stopped(
    run_pipeline: Callable[..., str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune = "config: tune.yaml, overrides: {training.learning_rate: 0.001, checkpoint.every: 1}"
    stages = ("name: world, config: world.yaml", f"name: one, {tune}", f"name: two, {tune}")
    calls: list[int] = []
    step = sft.train_step

    def stop_at_the_second(*arguments: Any) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(sft, "train_step", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(*stages)
    printed = run_pipeline(*stages)
    assert "stage 1/3 world: finished already" in printed
    assert "goes on after step 1 of 2" in printed
    assert len(calls) == 2 + 1 + 2
    assert "stage 3/3 two: done in" in printed
    policies = [folder / "p" / name / "checkpoints" / "step-000002" / "policy" for name in ("one", "two")]
    one, two = ((policy / "model.safetensors").read_bytes() for policy in policies)
    assert one == two
    assert json.loads((folder / "p" / "one" / "done").read_text()) == {"output": "checkpoints/step-000002/policy"}
