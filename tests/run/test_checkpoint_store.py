"""The folder of checkpoints: whole or not there, the newest and the best, what is pruned, what a crash leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from ampo_registry import ConfigError, RunError

from ampo_core.config.tree import CheckpointConfig
from ampo_core.run.checkpoint_store import CheckpointStore, is_whole

SCORE = "eval/macro/avg"


def make(tmp_path: Path, *, keep: int = 2, best: str | None = SCORE) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", CheckpointConfig(keep=keep, best=best))


def fill(partial: Path) -> None:
    for name in ("policy", "deepspeed", "ranks"):
        (partial / name).mkdir()
    (partial / "policy" / "model.safetensors").write_bytes(b"weights")
    for name in ("0.pt", "0.json"):
        (partial / "ranks" / name).touch()


def save(store: CheckpointStore, step: int, score: float | None = None) -> Path:
    fill(store.begin(step))
    return store.commit(step, {"world_size": 1}, {} if score is None else {SCORE: score})


def steps(store: CheckpointStore) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in store.path.glob("step-*"))


def test_a_checkpoint_is_whole_and_latest_names_it(tmp_path: Path) -> None:
    store = make(tmp_path)
    assert store.latest() is None
    assert store.newest() is None
    final = save(store, 50)
    assert final == store.path / "step-000050" == store.latest() == store.newest()
    assert is_whole(final)
    state = json.loads((final / "state.json").read_text())
    assert state == {"format": 1, "world_size": 1, "step": 50, "best": None}
    assert [path.name for path in store.path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("missing", ["state.json", "policy", "deepspeed", "ranks/0.pt", "ranks/0.json"])
def test_without_any_of_its_parts_it_is_not_whole(tmp_path: Path, missing: str) -> None:
    store = make(tmp_path)
    first, second = save(store, 1), save(store, 2)
    part = second / missing
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    assert not is_whole(second)
    assert store.newest() == first


def test_prune_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    store = make(tmp_path)
    for step, score in ((1, 0.1), (2, 0.9), (3, 0.3), (4, 0.9), (5, float("nan"))):
        save(store, step, score)
    assert steps(store) == [2, 4, 5]
    assert store.best() == {"metric": SCORE, "value": 0.9, "step": 2, "checkpoint": "step-000002"}
    save(store, 6, 0.95)
    assert steps(store) == [5, 6]


def test_prune_orders_by_number(tmp_path: Path) -> None:
    store = make(tmp_path, keep=1)
    save(store, 999_999)
    save(store, 1_000_000)
    assert steps(store) == [1_000_000]


def test_is_best_needs_the_named_metric(tmp_path: Path) -> None:
    assert not make(tmp_path, best=None).is_best({SCORE: 1.0})
    store = make(tmp_path)
    assert store.is_best({SCORE: 0.0})
    assert not store.is_best({"reward/mean": 1.0})
    save(store, 1, 0.5)
    assert not store.is_best({SCORE: 0.5})
    assert make(tmp_path, best="reward/mean").is_best({"reward/mean": 0.1})


def test_a_checkpoint_is_never_overwritten(tmp_path: Path) -> None:
    store = make(tmp_path)
    save(store, 1)
    with pytest.raises(RunError, match="exists already"):
        store.begin(1)


CRASHES = ["filling", "state.json", "flush", "rename", "best.json", "latest", "prune"]


def crash(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Let the next commit die at `where`."""
    from ampo_core.run import checkpoint_store

    atomically = checkpoint_store.write_atomically

    def die(*_: object, **__: object) -> Any:
        raise KeyboardInterrupt

    def die_at(path: Path, text: str) -> None:
        die() if path.name == where else atomically(path, text)

    target = {"flush": "flush_tree", "state.json": "write_json", "prune": "_remove"}.get(where)
    if where == "rename":
        monkeypatch.setattr(Path, "rename", die)
    elif target is not None:
        monkeypatch.setattr(checkpoint_store, target, die)
    else:
        monkeypatch.setattr(checkpoint_store, "write_atomically", die_at)


@pytest.mark.parametrize("where", CRASHES)
def test_after_a_crash_anywhere_a_run_goes_on_as_if_there_had_been_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    scores = {1: 0.1, 2: 0.9, 3: 0.3, 4: 0.2}
    untouched = make(tmp_path / "untouched", keep=1)
    for step, score in scores.items():
        save(untouched, step, score)

    store = make(tmp_path / "crashed", keep=1)
    for step in (1,):
        save(store, step, scores[step])
    partial = store.begin(2)
    fill(partial)
    if where != "filling":
        with monkeypatch.context() as patch:
            crash(patch, where)
            with pytest.raises(KeyboardInterrupt):
                store.commit(2, {"world_size": 1}, {SCORE: scores[2]})

    checkpoint = store.newest()
    assert checkpoint is not None
    committed = where in ("best.json", "latest", "prune")
    assert checkpoint.name == ("step-000002" if committed else "step-000001")
    store.go_on_from(checkpoint)
    assert list(store.path.glob(".*")) == []
    best = store.best()
    assert best is not None
    assert best["step"] == (2 if committed else 1)
    assert store.latest() == checkpoint
    for step in range(int(checkpoint.name[-1]) + 1, 5):
        save(store, step, scores[step])
    assert steps(store) == steps(untouched) == [2, 4]
    assert store.best() == untouched.best()


def test_what_is_newer_than_the_checkpoint_goes(tmp_path: Path) -> None:
    store = make(tmp_path)
    first, second = save(store, 1, 0.1), save(store, 2, 0.9)
    (second / "ranks" / "0.pt").unlink()
    store.go_on_from(store.newest())
    assert steps(store) == [1]
    assert store.latest() == first
    best = store.best()
    assert best is not None
    assert best["step"] == 1


def test_starting_over_leaves_no_checkpoint(tmp_path: Path) -> None:
    store = make(tmp_path)
    store.go_on_from(None)
    assert not store.path.exists()
    fill(store.begin(1))
    store.go_on_from(None)
    assert list(store.path.iterdir()) == []


def test_checkpoints_that_cannot_be_used_are_refused_and_kept(tmp_path: Path) -> None:
    store = make(tmp_path)
    (store.path / "step-000007" / "policy").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"no checkpoint in .* is whole .*model\.path: .*step-000007/policy"):
        store.newest()
    final = save(store, 8)
    (final / "state.json").write_text(json.dumps({"format": 2, "world_size": 1}))
    with pytest.raises(ConfigError, match="is of format 2, this release reads 1"):
        store.newest()
    (store.path / "step-mine").mkdir()
    with pytest.raises(ConfigError, match="step-mine is not a checkpoint"):
        store.newest()


@pytest.mark.parametrize("part", [".", "deepspeed", "ranks/0.pt"])
def test_a_checkpoint_that_leads_out_of_the_run_is_refused(tmp_path: Path, part: str) -> None:
    store = make(tmp_path)
    inside, outside = save(store, 1) / part, tmp_path / "elsewhere"
    inside.rename(outside)
    inside.symlink_to(outside)
    with pytest.raises(ConfigError, match=f"leads to {outside}.*: a run goes on only from files of its own folder"):
        store.newest()


def test_the_folder_of_all_checkpoints_may_lie_on_another_disk(tmp_path: Path) -> None:
    store = make(tmp_path)
    (tmp_path / "large").mkdir()
    store.path.symlink_to(tmp_path / "large")
    assert store.newest() is None
    final = save(store, 1)
    assert store.newest() == final
