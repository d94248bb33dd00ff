"""Stages of a pipeline side by side: which could, what share each has, and what becomes of them when it ends early."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from ampo_registry import ConfigError
from ampo_registry.discovery import Plugins

from ampo_core.config.load import load_config
from ampo_core.jobs import stages
from ampo_core.jobs.members import Finished, load_member, open_folder
from ampo_core.jobs.pipeline import check_folder
from ampo_core.jobs.stages import StageTask, plan_stages
from ampo_core.run.folder import RunFolder
from ampo_core.run.manifest import build_manifest
from tests.forge import Forge

WORLD = "job: prepare\ntask: {type: labelled_arithmetic, questions: 12, heldout_per_level: 2, warmup_examples: 20}\n"
TUNE = """\
job: sft
model: {path: "${stages.world.out}/model", dtype: float32, gradient_checkpointing: false}
data: {train: ["${stages.world.out}/sft.parquet"], format: messages}
training: {epochs: 3, batch: 10, accumulation: 1, learning_rate: 1.0e-3}
deepspeed: {zero_stage: 0}
checkpoint: {every: 1}
resources: {threads: 5}
"""
FROM_ONE = 'overrides: {model.path: "${stages.one.out}"}'
FORKED = ("world", "one", "two", f"last: {FROM_ONE}")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """write(stages, at_once): pipeline.yaml, in which `world` makes the data and every other stage is tune.yaml."""
    (tmp_path / "world.yaml").write_text(WORLD)
    (tmp_path / "tune.yaml").write_text(TUNE)

    def make(named: tuple[str, ...] = FORKED, at_once: int = 2, name: str = "p") -> Path:
        lines = []
        for text in named:
            stage, _, rest = text.partition(": ")
            file = "world.yaml" if stage == "world" else "tune.yaml"
            lines.append(f"  - {{name: {stage}, config: {file}{', ' + rest if rest else ''}}}\n")
        path = tmp_path / f"{name}.yaml"
        run = f"run: {{name: {name}, dir: {tmp_path}}}"
        path.write_text(f"job: pipeline\n{run}\nat_once: {at_once}\nstages:\n{''.join(lines)}")
        return path

    return make


@pytest.fixture
def planned(write: Callable[..., Path], environment_of: Callable[..., Any]) -> Callable[..., dict[str, StageTask]]:
    """The stages of a pipeline as they are planned, by name."""

    def plan(*arguments: Any) -> dict[str, StageTask]:
        return {task.name: task for task in plan_stages(*environment_of(write(*arguments)))}

    return plan


def test_what_refers_to_another_directly_or_through_others_runs_after_it(planned: Any) -> None:
    tasks = planned(FORKED)
    assert {name: set(task.needs) for name, task in tasks.items()} == {
        "world": set(),
        "one": {"world"},
        "two": {"world"},
        "last": {"world", "one"},
    }
    assert {name for name, task in tasks.items() if task.alone} == {"world"}


@pytest.mark.parametrize(
    ("at_once", "shares"), [(1, (None, None, None)), (2, (2, 2, 2)), (3, (2, 1, 2)), (9, (2, 1, 2))], ids=str
)
def test_threads_are_shared_with_those_that_could_run_beside(planned: Any, at_once: int, shares: tuple[Any]) -> None:
    tasks = planned(FORKED, at_once)
    # beside one: two; beside two: one, last
    assert tuple(tasks[name].member.threads for name in ("one", "two", "last")) == shares
    assert tasks["world"].member.threads is None


def test_a_stage_that_no_other_can_run_beside_has_all_threads(planned: Any) -> None:
    tasks = planned((*FORKED, 'end: overrides: {model.path: "${stages.last.out}", data.train: ["${stages.two.out}"]}'))
    assert (tasks["end"].alone, tasks["end"].member.threads) == (True, None)


def test_threads_that_no_config_says_are_those_of_the_machine_and_a_stage_keeps_them(
    planned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ("world", "one: overrides: {resources.threads: null}", "two")
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert planned(own)["one"].member.threads == 3
    (tmp_path / "p" / "one").mkdir(parents=True)
    (tmp_path / "p" / "one" / "config.yaml").write_text("job: sft\nresources: {threads: 8}\n")
    assert planned(own)["one"].member.threads == 8


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 3)], ids=str)
def test_a_finished_stage_keeps_its_threads_whatever_at_once_is_now(
    write: Callable[..., Path],
    environment_of: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    before: int,
    after: int,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "12")
    open_ended = "overrides: {resources.threads: null}"
    named = ("world", f"one: {open_ended}", f"two: {open_ended}", f"last: {open_ended}")
    job, environment = environment_of(write(named, before))
    open_folder(job, environment)
    finished = Finished()
    for task in plan_stages(job, environment):
        loaded, _ = load_member(task.member, finished, environment)
        manifest = build_manifest(job=loaded.job.job, seed=0, plugins={})
        out = RunFolder.create(loaded.job.run, loaded.yaml, manifest).finish()
        finished.out[task.name] = finished.run[task.name] = out
    job, environment = environment_of(write(named, after))
    check_folder(job, plan_stages(job, environment), environment)
    named = ("world", "one: overrides: {resources.threads: 7}", *named[2:])
    job, environment = environment_of(write(named, after))
    with pytest.raises(ConfigError, match=r"stage one is finished .*\n  resources\.threads: "):
        check_folder(job, plan_stages(job, environment), environment)


def test_gpus_decide_how_many_run_at_once(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "visible_gpus", lambda environ: 3)
    assert [stages.width_here(at_once, {}) for at_once in (1, 2, 3, 8)] == [1, 2, 3, 3]
    monkeypatch.setattr("ampo_core.config.machines.visible_gpus", lambda environ: 3)
    wide = ("world", "one: overrides: {resources.devices: 2}", "two")
    with pytest.raises(
        ConfigError, match=r"stages\.one: resources\.devices: found 2, but its share of the 3 GPUs here is 1"
    ):
        planned(wide)
    planned(wide, 1)


def test_a_stage_of_several_nodes_has_them_for_itself(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_RANK", "0")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    with pytest.raises(
        ConfigError, match=r"resources\.nodes: found 2, but a stage of several nodes has them for itself"
    ):
        planned(("world", "one: overrides: {resources.nodes: 2}", "two"))


@pytest.mark.parametrize(("named", "warns"), [(FORKED, False), (("world", "one", f"last: {FROM_ONE}"), True)], ids=str)
def test_an_at_once_that_nothing_can_use_is_a_warning(
    write: Callable[..., Path], plugins: Plugins, named: tuple[str, ...], warns: bool
) -> None:
    found = [text for text in load_config(write(named), (), plugins).warnings if "at_once" in text]
    assert len(found) == warns
    assert all("each stage needs all before it" in text for text in found)


def test_stages_go_on_after_a_kill_with_the_bits_of_those_that_ran_in_turn(
    write: Callable[..., Path], forge: Forge, tmp_path: Path
) -> None:
    """One story in one folder, because every process that trains takes seconds to start."""
    named = (
        "world",
        "one",
        "bad: overrides: {data.format: pool}",
        'last: overrides: {model.path: "${stages.bad.out}"}',
    )
    config, folder = write(named), tmp_path / "p"

    # killed, it takes what it has started with it
    process = forge.start(config, out=tmp_path / "out.txt")
    checkpoint, waited = folder / "one" / "checkpoints" / "step-000002", time.monotonic()
    while not checkpoint.exists() and time.monotonic() - waited < 120:
        time.sleep(0.01)
    started = psutil.Process(process.pid).children()
    process.kill()
    _, alive = psutil.wait_procs(started, timeout=10)
    assert (bool(started), alive) == (True, [])

    # the same command goes on; what fails keeps only those from running that need it
    failed = forge.run(config)
    assert failed.returncode == 1
    assert "one: goes on after step" in failed.stdout
    assert "stage 2/4 one: done in" in failed.stdout
    assert "bad: ampo-run: error" in failed.stdout
    assert "stage 3/4 bad: failed with exit code 2" in failed.stdout
    assert "stage 4/4 last: not started, it needs what failed" in failed.stderr
    assert "sft 6/6" in (folder / "logs" / "one.log").read_text()

    # by itself, with the threads that were its share, and left alone
    world = folder / "world" / "out"
    data = (f"model.path={world}/model", f"data.train=[{world}/sft.parquet]")
    alone = forge.run(tmp_path / "tune.yaml", *data, f"run.dir={tmp_path}", "run.name=one", "resources.threads=2")
    assert alone.returncode == 0, alone.stdout + alone.stderr
    weights = [path / "checkpoints/step-000006/policy/model.safetensors" for path in (folder / "one", tmp_path / "one")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
