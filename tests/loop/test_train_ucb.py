"""The bandit of plugins/examples in whole runs: it learns, goes on after a stop, and is the same on two ranks.

A late pool on two ranks is tried in the same start of the ranks.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from ampo_registry.discovery import Plugins, discover

from tests.loop.in_ranks import in_two_ranks
from tests.loop.test_train_late_teachers import PLUGIN as LIVE
from tests.loop.test_train_late_teachers import Teacher, asking, serve
from tests.loop.worlds import metrics_of, run, train

pytestmark = pytest.mark.process
UCB = Path(__file__).parents[2] / "plugins/examples/ampo-ucb/ampo_ucb/__init__.py"


@pytest.fixture(scope="module")
def with_ucb() -> Plugins:
    return discover([UCB, LIVE])


@pytest.fixture(scope="module")
def config(world: Path, student: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Six steps on twelve questions, so that each comes three times."""
    few = tmp_path_factory.mktemp("few") / "train.parquet"
    pq.write_table(pq.read_table(world / "train.parquet").slice(0, 12), few)
    guidance = {"selector": "ucb", "trigger": "always", "replacements": 1}
    return train(world, student, guidance=guidance, data={"train": [str(few)]}, training={"steps": 6})


@pytest.fixture(scope="module")
def alone(config: dict[str, Any], with_ucb: Plugins, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(config, tmp_path_factory.mktemp("alone"), with_ucb)[0]


def memory(policy: Path, rank: int = 0) -> dict[str, Any]:
    """What the bandit of a rank remembers at a checkpoint."""
    state = json.loads((policy.parent / f"ranks/{rank}.json").read_text("utf-8"))
    return dict(state["components"]["selector"])


def test_every_choice_is_counted_and_judged_when_its_question_comes_again(alone: Path) -> None:
    lines, state = metrics_of(alone), memory(alone)
    chosen, judged = Counter(state["chosen"]), Counter(state["judged"])
    assert chosen == sum(
        (Counter({k: round(v) for k, v in by_teacher(line).items()}) for line in lines), start=Counter[str]()
    )
    assert chosen.total() - judged.total() == len(state["pending"]) > 0
    assert min(judged.values()) > 0
    assert {name for name in lines[-1] if name.startswith("ucb/")} == {
        "ucb/pending",
        *(f"ucb/gain/{teacher}" for teacher in judged),
    }


def by_teacher(line: dict[str, Any]) -> dict[str, float]:
    start = "guidance/answers/"
    return {name.removeprefix(start): value for name, value in line.items() if name.startswith(start)}


def test_a_bandit_that_was_stopped_goes_on_to_the_same_bits(
    config: dict[str, Any], alone: Path, with_ucb: Plugins, tmp_path: Path
) -> None:
    run(config, tmp_path, with_ucb, "training.steps=3")
    again, screen = run(config, tmp_path, with_ucb, allow_changes=True)
    assert "goes on after step 3 of 6" in screen
    assert metrics_of(again) == metrics_of(alone)
    assert memory(again) == memory(alone)
    assert (again / "model.safetensors").read_bytes() == (alone / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_two_ranks_learn_as_one_does_and_ask_a_live_teacher_once(
    config: dict[str, Any],
    alone: Path,
    world: Path,
    student: Path,
    with_ucb: Plugins,
    tmp_path: Path,
) -> None:
    with serve(world) as teacher:
        live = asking(world, student, f"{teacher.url}/plain")
        one, _ = run(live, tmp_path / "one", with_ucb)
        asked = drained(teacher)
        paths = []
        for name, blocks in {"ucb": config, "live": live}.items():
            both = {**blocks, "deepspeed": {"zero_stage": 2}, "resources": {"threads": 1, "devices": 2}}
            both["run"] = {**blocks["run"], "dir": str(tmp_path), "name": name}
            paths.append(tmp_path / f"{name}.yaml")
            paths[-1].write_text(yaml.safe_dump(both), encoding="utf-8")
        in_two_ranks(*([path, "--plugin", UCB, "--plugin", LIVE] for path in paths))
        together = drained(teacher)
    ucb, two = (
        tmp_path / f"{name}/checkpoints" / policy for name, policy in (("ucb", last(alone)), ("live", last(one)))
    )
    assert memory(ucb, 0) == memory(ucb, 1) == memory(alone)
    # each question is asked by one rank, and both do their share
    assert Counter(uid for uid, _ in together) == Counter(uid for uid, _ in asked)
    assert {rank for _, rank in together} == {0, 1}
    for mine, other in zip(metrics_of(two), metrics_of(one), strict=True):
        expected = {name: value for name, value in other.items() if name != "tokens/padding"}
        assert {name: mine[name] for name in expected} == pytest.approx(expected, rel=1e-3, abs=1e-5)


def last(policy: Path) -> str:
    return f"{policy.parent.name}/policy"


def drained(teacher: Teacher) -> list[tuple[str, int]]:
    """The questions that were asked, and by which rank; the list is empty afterwards."""
    found = [(body["uid"], body["rank"]) for body in teacher.asked]
    teacher.asked.clear()
    return found
