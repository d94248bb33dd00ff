"""Trackers, for real where the package is installed."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ampo_plugins.trackers.tensorboard import TensorBoard
from ampo_plugins.trackers.wandb import Wandb
from ampo_registry import BuildContext, ConfigError

HAS_WANDB = importlib.util.find_spec("wandb") is not None


def test_tensorboard_writes_scalars_into_the_run_folder(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = TensorBoard().build(BuildContext(run_dir=tmp_path))
    tracker.log({"reward/mean": 0.25, "policy/loss": -1.0}, step=1)
    tracker.log({"reward/mean": 0.5}, step=2)

    def read() -> list[tuple[int, float]]:
        events = EventAccumulator(str(tmp_path / "tensorboard"))
        events.Reload()
        return [(event.step, event.value) for event in events.Scalars("reward/mean")]

    assert read() == [(1, 0.25), (2, 0.5)], "metrics must be on disk before the tracker is closed"
    tracker.close()
    assert read() == [(1, 0.25), (2, 0.5)]


@pytest.mark.parametrize(("resume_step", "read"), [(3, [1, 2, 3, 4]), (0, [1])])
def test_tensorboard_shows_a_repeated_step_once(tmp_path: Path, resume_step: int, read: list[int]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = TensorBoard().build(BuildContext(run_dir=tmp_path))
    for step in (1, 2, 3, 4, 5):
        first.log({"reward/mean": 0.0}, step=step)
    first.close()
    time.sleep(1.1)  # event files are named, and read, by the second
    second = TensorBoard().build(BuildContext(run_dir=tmp_path, resume_step=resume_step))
    second.log({"reward/mean": 1.0}, step=resume_step + 1)
    second.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("reward/mean")] == read


@pytest.mark.parametrize("spec", [TensorBoard(), Wandb()])
def test_a_tracker_needs_a_run_folder(spec: TensorBoard | Wandb, fake_wandb: FakeWandb) -> None:
    with pytest.raises(ConfigError, match="run folder"):
        spec.build(BuildContext())
    assert fake_wandb.options == {}


class FakeWandb(SimpleNamespace):
    """Records what reaches wandb.init and the run."""

    def __init__(self) -> None:
        super().__init__(logged=[], finished=0, options={})
        self.__spec__ = SimpleNamespace(name="wandb")

    def init(self, **options: Any) -> FakeWandb:
        self.options = options
        return self

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.logged.append((step, metrics))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_wandb_is_offline_unless_the_config_says_online(fake_wandb: FakeWandb, tmp_path: Path) -> None:
    context = BuildContext(run_dir=tmp_path, run_name="mine", config={"job": "train"})
    tracker = Wandb().build(context)
    assert fake_wandb.options["mode"] == "offline"
    assert fake_wandb.options["project"] == "ampo"
    assert fake_wandb.options["name"] == "mine"
    assert fake_wandb.options["config"] == {"job": "train"}
    tracker.log({"reward/mean": 0.5}, step=3)
    tracker.close()
    assert fake_wandb.logged == [(3, {"reward/mean": 0.5})]
    assert fake_wandb.finished == 1
    Wandb(mode="online", project="p").build(context)
    assert fake_wandb.options["mode"] == "online"
    assert fake_wandb.options["project"] == "p"


@pytest.mark.skipif(HAS_WANDB, reason="wandb is installed")
def test_a_missing_wandb_says_how_to_get_it(tmp_path: Path) -> None:
    reason = Wandb().unavailable()
    assert reason is not None
    assert "ampo-rl[tracking]" in reason
    with pytest.raises(ConfigError, match="tracking"):
        Wandb().build(BuildContext(run_dir=tmp_path))


@pytest.mark.skipif(not HAS_WANDB, reason="wandb is not installed")
def test_wandb_writes_an_offline_run(tmp_path: Path) -> None:
    tracker = Wandb().build(BuildContext(run_dir=tmp_path, run_name="mine"))
    tracker.log({"reward/mean": 0.5}, step=1)
    tracker.close()
    assert list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))


def test_wandb_goes_on_with_its_own_run(fake_wandb: FakeWandb, tmp_path: Path) -> None:
    def started(resume_step: int | None) -> tuple[str, str | None]:
        Wandb().build(BuildContext(run_dir=tmp_path, resume_step=resume_step))
        return fake_wandb.options["id"], fake_wandb.options["resume"]

    first, how = started(None)
    assert how is None
    assert started(5) == (first, "allow")
    over, how = started(0)
    assert over != first
    assert how is None
