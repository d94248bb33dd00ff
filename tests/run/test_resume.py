"""What becomes of a folder that is there already: what is compared, what is refused, and in which words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from ampo_registry import ConfigError
from ampo_registry.discovery import Plugins, discover
from rich.console import Console

from ampo_core.config.jobs import SftJob, TrainJob
from ampo_core.config.load import load_config
from ampo_core.config.tree import CheckpointConfig
from ampo_core.jobs.table import run_job
from ampo_core.run.changes import differences, manifest_changes
from ampo_core.run.checkpoint_store import CheckpointStore
from ampo_core.run.environment import Environment
from ampo_core.run.folder import RunFolder
from ampo_core.run.history import WentOn, marks_of
from ampo_core.run.manifest import build_manifest
from ampo_core.run.resume import Beginning, begin, look

MANIFEST = {
    "job": "sft",
    "seed": 0,
    "versions": {"python": "3.11.7", "torch": "2.13.0", "pluggy": "1.7.0"},
    "plugins": {"ampo-rl": "0.1.0"},
    "data": {"a.jsonl": {"sha256": "aa", "bytes": 3}},
    "models": {"model": {"config.json": {"sha256": "cc", "bytes": 4}}},
    "teachers": ["x", "y"],
    "questions": {"train": {"count": 2, "sha256": "dd"}},
    "platform": {"cpus": 2},
}


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return discover()


class World:
    """A config of an sft job and the folder of its run."""

    def __init__(self, folder: Path, plugins: Plugins) -> None:
        self.folder, self.plugins = folder, plugins
        self.run = folder / "runs" / "demo"
        self.config: dict[str, Any] = {
            "job": "sft",
            "run": {"name": "demo", "dir": str(folder / "runs")},
            "model": {"path": "model"},
            "data": {"train": ["a.jsonl"]},
        }
        self.manifest: dict[str, Any] = json.loads(json.dumps(MANIFEST))

    def job(self, allow_changes: bool = False) -> tuple[SftJob, Environment]:
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(self.config))
        loaded = load_config(path, (), self.plugins)
        console = Console(file=StringIO(), width=200)
        assert isinstance(loaded.job, SftJob)
        return loaded.job, Environment.of(loaded, self.plugins, console=console, allow_changes=allow_changes)

    def start(self, *steps: int, finished: bool = False, world_size: int = 1) -> None:
        """Make the folder as a run leaves it that has come so far."""
        job, environment = self.job()
        folder = RunFolder.create(job.run, environment.yaml, self.manifest)
        store = CheckpointStore(folder.checkpoints, CheckpointConfig(keep=9))
        for step in steps:
            partial = store.begin(step)
            for name in ("policy", "deepspeed", "ranks"):
                (partial / name).mkdir()
            for rank in range(world_size):
                (partial / "ranks" / f"{rank}.pt").touch()
                (partial / "ranks" / f"{rank}.json").touch()
            store.commit(step, {"world_size": world_size, "trackers": {}}, {})
        for step in range(max(steps, default=0) + 1):
            folder.log_metrics(step, {"policy/loss": 1.0})
        if finished:
            folder.finish()

    def begin(self, *, allow_changes: bool = False, steps: int = 9, world_size: int = 1) -> Beginning:
        job, environment = self.job(allow_changes)
        return begin(job, environment, lambda: self.manifest, steps=steps, world_size=world_size)


@pytest.fixture
def world(tmp_path: Path, plugins: Plugins) -> World:
    return World(tmp_path, plugins)


def test_differences_name_dotted_keys() -> None:
    before = {"a": {"b": 1, "c": [1, 2]}, "d": None}
    after = {"a": {"b": 2, "c": [1, 2]}, "e": True}
    assert differences(before, after) == [("a.b", 1, 2), ("e", None, True)]


def test_a_new_folder_is_a_new_run(world: World) -> None:
    beginning = world.begin()
    assert (beginning.resume_step, beginning.checkpoint, beginning.notes) == (None, None, ())
    assert not world.run.exists()
    assert look(*world.job()) == "new"


def test_a_run_that_died_while_its_folder_was_made_is_a_new_one(world: World) -> None:
    world.run.mkdir(parents=True)
    (world.run / "manifest.json").write_text("{}")
    (world.run / ".config.yaml.partial").write_text("job: s")
    assert world.begin().resume_step is None


def test_a_run_goes_on_from_its_newest_checkpoint(world: World) -> None:
    world.start(2, 4)
    assert look(*world.job()) == "unfinished"
    beginning = world.begin()
    assert (beginning.resume_step, beginning.checkpoint) == (4, world.run / "checkpoints/step-000004")
    assert beginning.notes == ("goes on after step 4 of 9",)


def test_without_a_checkpoint_it_starts_over(world: World) -> None:
    world.start()
    world.manifest["versions"]["torch"] = "2.14.0"
    beginning = world.begin()
    assert (beginning.resume_step, beginning.checkpoint) == (0, None)
    assert beginning.notes == (f"{world.run} has no checkpoint yet: the run starts over",)


def test_a_moved_folder_goes_on(world: World) -> None:
    world.start(2)
    moved = world.folder / "elsewhere" / "other"
    moved.parent.mkdir()
    world.run.rename(moved)
    world.config["run"] = {"name": "other", "dir": str(moved.parent)}
    assert world.begin().resume_step == 2


def test_a_run_that_began_under_the_distributions_old_name_goes_on(world: World) -> None:
    now = {**world.manifest["versions"], "ampo-rl": "0.1.0"}
    world.manifest |= {"versions": {**world.manifest["versions"], "ampo": "0.1.0"}, "plugins": {"ampo": "0.1.0"}}
    world.start(2)
    world.manifest |= {"versions": now, "plugins": {"ampo-rl": "0.1.0"}}
    assert world.begin().resume_step == 2
    world.manifest |= {"versions": {**now, "ampo-rl": "0.9.0"}, "plugins": {"ampo-rl": "0.9.0"}}
    with pytest.raises(ConfigError) as refused:
        world.begin()
    changed = [line.strip() for line in str(refused.value).splitlines() if "->" in line]
    assert changed == [f"{part}.ampo-rl: '0.1.0' -> '0.9.0'" for part in ("versions", "plugins")]


TODAY = """
job: train
run: {name: old}
model: {path: model, dtype: float32, gradient_checkpointing: false}
data: {train: [train.parquet], max_prompt_tokens: 64}
rollout: {type: transformers, max_response_tokens: 112}
reward: {workers: 1}
guidance: {selector: {type: comprehension, score_rounding: {decimals: 2}}}
objective:
  scope: batch
  advantage: {zero_without_correct: true}
  on_policy: {weight: proportional}
  off_policy: {weight: proportional, loss: {type: shaped, shaping: {type: ratio, gamma: 0.1}}}
  entropy_coefficient: 0.0
training:
  {steps: 6, questions_per_batch: 16, questions_per_minibatch: 4, tokens_per_microbatch: 4096, learning_rate: 2.0e-4,
  betas: [0.9, 0.95], weight_decay: 0.0}
deepspeed: {zero_stage: 0}
checkpoint: {every: 3, keep: 3, best: null}
resources: {threads: 1}
tracking: []
"""


def test_a_run_of_release_0_1_says_where_its_keys_have_moved_and_goes_on(
    tmp_path: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is one that release 0.1 has left; the keys of `TODAY` say the same."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(Path(__file__).parents[1] / "release_0_1" / "run", "runs/old")
    checkpoint = Path("runs/old/checkpoints/step-000003")
    for name in ("policy", "deepspeed", "ranks"):
        (checkpoint / name).mkdir(parents=True)
    for name in ("ranks/0.pt", "ranks/0.json"):
        (checkpoint / name).touch()
    checkpoint.joinpath("state.json").write_text('{"format": 1, "metrics": {}, "trackers": {}, "world_size": 1}')
    now = json.loads(Path("runs/old/manifest.json").read_text())
    now["versions"]["ampo-rl"] = now["plugins"]["ampo-rl"] = "0.2.0"

    def begun(*overrides: str) -> Beginning:
        Path("today.yaml").write_text(TODAY)
        loaded = load_config("today.yaml", overrides, plugins)
        console = Console(file=StringIO(), width=200)
        assert isinstance(loaded.job, TrainJob)
        environment = Environment.of(loaded, plugins, console=console, allow_changes=False)
        return begin(loaded.job, environment, lambda: now, steps=loaded.job.training.steps, world_size=1)

    beginning = begun()
    assert beginning.resume_step == 3
    goes_on, release, moved = beginning.notes
    assert goes_on == "goes on after step 3 of 6"
    assert release == "runs/old: ampo-rl 0.1.0 began it, 0.2.0 goes on with it"
    assert moved.startswith("runs/old: its config is older, and these keys have moved since:\n")
    assert [line.strip().split(": ")[0] for line in moved.splitlines()[1:]] == [
        *(f"objective.on_policy.{key}" for key in ("clip", "dual_clip", "log_ratio_clamp")),
        *(f"objective.off_policy.{key}" for key in ("shaping", "clip", "behaviour")),
    ]
    with pytest.raises(ConfigError, match=r"objective.on_policy.loss.high: 0.2 -> 0.28") as refused:
        begun("objective.on_policy.loss.high=0.28")
    assert str(refused.value).count(" -> ") == 1
    now["versions"]["torch"] = "2.99"
    with pytest.raises(ConfigError, match=r"versions\.torch") as refused:
        begun()
    assert str(refused.value).count(" -> ") == 1


CHANGES: dict[str, tuple[Callable[[World], Any], str]] = {
    "config": (lambda w: w.config.update(training={"learning_rate": 0.5}), "training.learning_rate: 5e-05 -> 0.5"),
    "seed": (lambda w: w.config["run"].update(seed=7), "run.seed: 0 -> 7"),
    "torch": (lambda w: w.manifest["versions"].update(torch="2.14.0"), "versions.torch: '2.13.0' -> '2.14.0'"),
    "python": (lambda w: w.manifest["versions"].update(python="3.12.1"), "versions.python: '3.11' -> '3.12'"),
    "plugin": (lambda w: w.manifest["plugins"].update({"ampo-rl": "0.9.0"}), "plugins.ampo-rl: '0.1.0' -> '0.9.0'"),
    "new plugin": (lambda w: w.manifest["plugins"].update(mine="1"), "plugins.mine: None -> '1'"),
    "data": (lambda w: w.manifest["data"]["a.jsonl"].update(sha256="bb"), "data.a.jsonl.sha256: 'aa' -> 'bb'"),
    "model": (lambda w: w.manifest.update(models={"model": None}), "models.model: {'config.json'"),
    "teachers": (lambda w: w.manifest.update(teachers=["x"]), "teachers: ['x', 'y'] -> ['x']"),
    "questions": (
        lambda w: w.manifest["questions"]["train"].update(sha256="ee"),
        "questions.train.sha256: 'dd' -> 'ee'",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_may_change_a_result_is_listed_and_refused_unless_allowed(world: World, change: str) -> None:
    world.start(2)
    act, said = CHANGES[change]
    act(world)
    with pytest.raises(ConfigError) as refused:
        world.begin()
    lines = str(refused.value).splitlines()
    assert lines[0] == f"{world.run} holds an unfinished run, and these have changed since it began:"
    assert len(lines) == 3
    assert lines[1].startswith(f"  {said}")
    assert lines[2].endswith("or allow them with --allow-changes")
    beginning = world.begin(allow_changes=True)
    assert beginning.resume_step == 2
    assert beginning.notes[1].startswith(f"changed, as allowed:\n  {said}")


def test_what_cannot_change_a_result_is_not_compared(world: World) -> None:
    world.start(2)
    world.manifest["versions"].update(python="3.11.9", pluggy="2.0.0")
    world.manifest.update(platform={"cpus": 64}, seed=0)
    assert manifest_changes(world.run, world.manifest) == []
    assert world.begin().resume_step == 2


def test_a_run_of_an_older_release_does_not_say_which_questions_it_had_and_goes_on(world: World) -> None:
    now = world.manifest.pop("questions")
    world.start(2)
    world.manifest["questions"] = now
    assert world.begin().notes == ("goes on after step 2 of 9",)


@pytest.mark.parametrize("finished", [False, True])
def test_another_jobs_folder_is_refused(world: World, finished: bool) -> None:
    world.manifest["job"] = "train"
    world.start(2, finished=finished)
    state = "a finished" if finished else "an unfinished"
    with pytest.raises(ConfigError, match=f"holds {state} run of a train job, and this is a sft job"):
        world.begin(allow_changes=True)


def test_other_files_and_damaged_folders_are_refused(world: World) -> None:
    world.run.mkdir(parents=True)
    (world.run / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        world.begin()
    (world.run / "thesis.tex").unlink()
    world.start(2)
    (world.run / "manifest.json").write_text("{")
    with pytest.raises(ConfigError, match=r"holds an unfinished run: .*manifest\.json cannot be read"):
        world.begin()


@pytest.mark.parametrize(
    ("key", "block"), [("deepspeed", {"zero_stage": 1}), ("model", {"path": "model", "dtype": "float32"})]
)
def test_what_the_learners_state_is_laid_out_by_never_changes(world: World, key: str, block: Mapping[str, Any]) -> None:
    world.start(2)
    world.config[key] = dict(block)
    with pytest.raises(ConfigError, match=rf"cannot change within a run:\n  {key}(?s:.*)model\.path: .*step-000002"):
        world.begin(allow_changes=True)


def test_another_number_of_ranks_never_goes_on(world: World) -> None:
    world.start(2, world_size=2)
    assert world.begin(world_size=2).resume_step == 2
    with pytest.raises(ConfigError, match="was written by 2 ranks and this run has 3"):
        world.begin(world_size=3, allow_changes=True)


def test_a_finished_run_is_left_alone_and_only_longer_ones_go_on(world: World, monkeypatch: Any) -> None:
    world.start(9, finished=True)
    world.manifest["versions"]["torch"] = "2.14.0"
    job, environment = world.job()
    assert look(job, environment) == "finished"
    monkeypatch.chdir(world.folder)
    assert run_job(job, environment) == world.run
    assert "is finished already; its output is" in environment.console.file.getvalue()  # type: ignore[attr-defined]
    world.config["training"] = {"epochs": 7}
    with pytest.raises(ConfigError, match=r"holds a finished run(?s:.*)training\.epochs: 3 -> 7"):
        world.begin()
    with pytest.raises(ConfigError, match="has come to step 9 and is asked for 9 steps: nothing is left"):
        world.begin(allow_changes=True)
    assert world.begin(allow_changes=True, steps=12).notes[0] == "goes on after step 9 of 12"


def test_fewer_steps_than_there_are_is_refused(world: World) -> None:
    world.start(4)
    assert world.begin(steps=4).resume_step == 4
    with pytest.raises(ConfigError, match="has come to step 4 and is asked for 3 steps"):
        world.begin(steps=3)


def test_reopening_cuts_back_and_keeps_what_was(world: World) -> None:
    world.start(2, 4, finished=True)
    _, environment = world.job()
    metrics = world.run / "metrics.jsonl"
    before = (world.run / "config.yaml").read_text()

    def reopen(step: int) -> list[int]:
        RunFolder.reopen(world.run, environment.yaml, world.manifest, environment.config, step)
        return [json.loads(line)["step"] for line in metrics.read_text().splitlines()]

    assert reopen(2) == [0, 1, 2]
    assert not (world.run / "done").exists()
    assert not (world.run / "history").exists()
    for rate in (0.5, 0.6):
        world.config["training"] = {"learning_rate": rate}
        _, environment = world.job()
        assert reopen(2) == [0, 1, 2]
        assert (world.run / "config.yaml").read_text() == environment.yaml
    history = world.run / "history"
    assert {path.name for path in history.iterdir()} == {
        "config.step-000002.yaml",
        "config.step-000002.2.yaml",
        "manifest.step-000002.json",
        "manifest.step-000002.2.json",
        "changes.jsonl",
    }
    assert (history / "config.step-000002.yaml").read_text() == before
    assert reopen(0) == []


RATE = "training.learning_rate"


class Changing:
    """A run of a world that goes on with other settings, as --allow-changes lets it."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.start(2, 4)

    def __call__(self, step: int, rate: float, torch: str | None = None, *, anew: bool = False) -> None:
        self.world.config["training"] = {"learning_rate": rate}
        self.world.manifest["versions"]["torch"] = torch or self.world.manifest["versions"]["torch"]
        _, environment = self.world.job()
        manifest, config = self.world.manifest, environment.config
        RunFolder.reopen(self.world.run, environment.yaml, manifest, config, step, anew=anew)

    @property
    def marks(self) -> list[WentOn]:
        return marks_of(self.world.run)


def test_changes_leave_marks_that_stay_over_several_resumes(world: World) -> None:
    go_on = Changing(world)
    assert go_on.marks == []
    first = 5e-5  # what the config has by itself
    go_on(2, 0.5)
    go_on(2, 0.5)  # the same again: nothing has changed
    world.manifest["platform"] = {"cpus": 64}  # which is no change
    go_on(2, 0.5)
    go_on(4, 0.6, "2.14.0")
    (then, later) = go_on.marks
    assert (then.step, then.changes) == (2, ((RATE, first, 0.5),))
    assert (later.step, later.changes) == (4, ((RATE, 0.5, 0.6), ("versions.torch", "2.13.0", "2.14.0")))
    assert all(item.time is not None and item.time.endswith("+00:00") for item in go_on.marks)
    lines = (world.run / "history/changes.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["changes"] == [[RATE, first, 0.5]]


def test_a_start_that_died_leaves_its_mark_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = Changing(world)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "_describe", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            go_on(2, 0.5)
    go_on(2, 0.5)
    assert [item.step for item in go_on.marks] == [2]


def test_a_run_that_starts_over_has_no_marks(world: World) -> None:
    go_on = Changing(world)
    go_on(2, 0.5)
    go_on(0, 0.6, anew=True)
    assert go_on.marks == []
    go_on(2, 0.7)
    assert [item.changes for item in go_on.marks] == [((RATE, 0.6, 0.7),)]


def test_the_marks_of_an_older_release_are_read_from_what_it_kept(world: World) -> None:
    go_on = Changing(world)
    go_on(0, 0.4)
    go_on(2, 0.5)
    go_on(2, 0.6, "2.14.0")
    known = go_on.marks
    log = world.run / "history/changes.jsonl"
    log.unlink()
    assert go_on.marks == [WentOn(item.step, None, item.changes) for item in known[1:]]
    go_on(4, 0.7)
    assert [(item.step, item.time is None) for item in go_on.marks] == [(2, True), (2, True), (4, False)]
    log.write_text('{"step": 1}\n')
    with pytest.raises(ConfigError, match=r"changes\.jsonl, line 1: not a change: it has no time"):
        marks_of(world.run)


def test_a_plugin_file_is_known_by_its_contents(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("x = 1\n")
    found = [build_manifest(job="sft", seed=0, plugins={str(plugin): "file", "ampo-rl": "0.1.0"})["plugins"]]
    plugin.write_text("x = 2\n")
    found.append(build_manifest(job="sft", seed=0, plugins={str(plugin): "file", "ampo-rl": "0.1.0"})["plugins"])
    assert [list(plugins) for plugins in found] == [["ampo-rl", "mine.py"]] * 2
    assert found[0]["mine.py"] != found[1]["mine.py"]
    assert found[0]["mine.py"].startswith("sha256 ")
