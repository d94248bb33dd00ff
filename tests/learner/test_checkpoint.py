"""Writing and loading a checkpoint: random numbers, memory of components, disks that refuse, ranks that fail."""

from __future__ import annotations

import errno
import json
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ampo_registry import ConfigError, RunError
from safetensors import SafetensorError

from ampo_core.config.tree import CheckpointConfig
from ampo_core.distributed.ranks import Ranks
from ampo_core.distributed.together import by_each, by_first
from ampo_core.learner.checkpoint import Checkpoint, Checkpoints, Position
from ampo_core.run import disk
from ampo_core.run.checkpoint_store import CheckpointStore

ALONE = Ranks(0, 1, torch.device("cpu"))


class FakeLearner:
    """Writes a file where the learner would."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.loaded = error, Path()

    def save_state(self, folder: Path) -> None:
        folder.mkdir()

    def save_policy(self, folder: Path, tokenizer: object) -> None:
        folder.mkdir()
        if self.error is not None:
            raise self.error

    def load_state(self, folder: Path) -> None:
        self.loaded = folder


class Memory:
    """A component that remembers a value."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


def save(folder: Path, step: int, learner: Any = None, memory: Any = 1) -> Path:
    checkpoints = Checkpoints(CheckpointStore(folder, CheckpointConfig()), ALONE)
    position = Position(step, taken=7 * step, policy_version=step)
    checkpoints.save(position, learner or FakeLearner(), None, Memory(memory), {}, lambda: {"0.Mine": {"id": "x"}})
    return checkpoints.path_of(step)


def draw() -> list[float]:
    random.gauss(0, 1)  # leaves a second number behind
    return [random.random(), random.gauss(0, 1), float(np.random.normal()), float(torch.rand(()))]


def test_everything_comes_back(tmp_path: Path) -> None:
    random.gauss(0, 1)
    np.random.normal()
    path = save(tmp_path, 3, memory={"seen": ["é"]})
    drawn = draw()
    draw()
    state = json.loads((path / "state.json").read_text())
    assert state["trackers"] == {"0.Mine": {"id": "x"}}
    assert (state["taken"], state["world_size"]) == (21, 1)
    learner: Any = FakeLearner()
    memory = Memory(None)
    checkpoint = Checkpoint(path, ALONE)
    assert checkpoint.load(learner, memory) == Position(3, 21, 3)
    assert learner.loaded == path / "deepspeed"
    assert memory.value == {"seen": ["é"]}
    checkpoint.restore_rng()
    assert draw() == drawn


def test_saving_draws_no_random_number(tmp_path: Path) -> None:
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    expected = draw()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    save(tmp_path, 1)
    assert draw() == expected


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 3249856 vs 3249744"),
    ],
)
def test_a_full_disk_is_named_and_keeps_the_old_checkpoint_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(disk, "_probe", lambda path: errno.ENOSPC)
    with pytest.raises(RunError, match=r"is full \(.*There is no checkpoint before it: the run starts over then$"):
        save(tmp_path, 1, FakeLearner(error))
    first = save(tmp_path, 1)
    said = (
        r"cannot write .*step-000002: the file system at .* is full \(.*A checkpoint takes .* KiB, and up to 4 stand "
    )
    with pytest.raises(RunError, match=said + "there at once; step-000001 is whole, and the run goes on there$"):
        save(tmp_path, 2, FakeLearner(error))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-000001"]
    store = CheckpointStore(tmp_path, CheckpointConfig())
    assert store.newest() == store.latest() == first
    store.go_on_from(first)
    assert save(tmp_path, 2) == store.newest()


@pytest.mark.parametrize("memory", [float("nan"), object()])
def test_memory_that_is_not_json_is_an_error(tmp_path: Path, memory: object) -> None:
    with pytest.raises(RunError, match=r"state_dict.* is not JSON"):
        save(tmp_path, 1, memory=memory)


def test_damaged_random_numbers_are_an_error(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (path / "ranks" / "0.pt").write_bytes(b"damaged")
    with pytest.raises(RunError, match=r"cannot read the random number generators in .*ranks/0\.pt"):
        Checkpoint(path, ALONE).restore_rng()


class ThreadRanks:
    """Two ranks as threads: what `by_first` and `by_each` need of Ranks."""

    def __init__(self, rank: int, box: dict[str, Any], barrier: threading.Barrier) -> None:
        self.rank, self.world_size, self._box, self._barrier = rank, 2, box, barrier

    def each(self, value: Any) -> list[Any]:
        self._box[self.rank] = value
        self._barrier.wait(10)
        return [self._box[0], self._box[1]]

    def first(self, value: Any) -> Any:
        return self.each(value)[0]


def together(act: Any) -> list[str]:
    """What `act(ranks)` returned or raised on each of two ranks."""
    box: dict[Any, Any] = {}
    barrier = threading.Barrier(2)
    ended = ["", ""]

    def one(rank: int) -> None:
        try:
            ended[rank] = str(act(ThreadRanks(rank, box, barrier)))
        except Exception as error:
            ended[rank] = f"{type(error).__name__}: {error}"

    threads = [threading.Thread(target=one, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return ended


def fail(error: Exception) -> None:
    raise error


def test_an_error_of_one_rank_is_an_error_of_all() -> None:
    assert together(lambda ranks: by_first(ranks, lambda: 5 + ranks.rank)) == ["5", "5"]
    assert together(lambda ranks: by_first(ranks, lambda: fail(ConfigError("no")))) == ["ConfigError: no"] * 2
    assert together(lambda ranks: by_first(ranks, lambda: fail(OSError("full")))) == ["OSError: full", "RunError: full"]

    def second(ranks: Any) -> None:
        by_each(ranks, lambda: fail(OSError("full")) if ranks.rank else None)

    assert together(second) == ["RunError: full", "OSError: full"]
