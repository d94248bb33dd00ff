"""Published methods as configs and plugins, none of which needs a line of the core: a few real steps of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ampo_registry.discovery import discover

from ampo_core.config.load import load_config
from ampo_core.jobs.table import run_job
from ampo_core.run.environment import Environment
from tests.loop.worlds import metrics_of

pytestmark = pytest.mark.process
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "plugins" / "examples"
SMALL = [
    "rollout={group_size: 8, max_response_tokens: 40}",
    "training={steps: 3, questions_per_batch: 12, questions_per_minibatch: 6, tokens_per_microbatch: 1024}",
    "training.learning_rate=1e-3",
]
GROUPS = ["objective.advantage.zero_without_correct=false"]  # hardly a response of the tiny student is right


def steps_of(
    config: Path, folder: Path, world: Path, student: Path, *files: Path, overrides: Sequence[str] = GROUPS
) -> list[dict[str, Any]]:
    """The metrics of three small steps of `config`, with the plugins of `files`."""
    found = discover(files)
    data = [f"run.dir={folder}", f"model.path={student}", f"data.train=[{world / 'train.parquet'}]"]
    loaded = load_config(config, [*SMALL, *data, *overrides], found)
    assert not loaded.warnings
    policy = run_job(loaded.job, Environment.of(loaded, found))
    assert policy is not None
    lines = metrics_of(policy)
    assert all(line["policy/grad_norm"] > 0 for line in lines)
    assert all(line.get("policy/rollout_logprob_gap", 0.0) < 1e-4 for line in lines)
    return lines


def test_gspo_clips_whole_responses(world: Path, student: Path, tmp_path: Path) -> None:
    lines = steps_of(ROOT / "configs/methods/gspo.yaml", tmp_path, world, student)
    assert any(line["policy/clip_fraction"] > 0 for line in lines)
    assert not any(name.startswith("guidance/") for line in lines for name in line)


def test_the_share_of_a_prefix_falls(world: Path, student: Path, tmp_path: Path) -> None:
    lines = steps_of(ROOT / "configs/methods/prefix.yaml", tmp_path, world, student)
    assert [line["prefix/share"] for line in lines] == pytest.approx([0.95, 0.5, 0.05])
    a_prefix = [line["tokens/teacher"] / (line["guidance/replaced"] * 12) for line in lines]
    assert a_prefix[0] > a_prefix[1] > a_prefix[2]
    assert all(line["guidance/generated"] > 0 for line in lines)
    assert all(line["policy/loss_off"] != 0 for line in lines)


def test_chords_supervised_term_has_an_answer_of_every_question_and_a_weight_that_falls(
    world: Path, student: Path, tmp_path: Path
) -> None:
    lines = steps_of(ROOT / "configs/methods/chord.yaml", tmp_path, world, student)
    assert all(10 <= sum(v for n, v in line.items() if n.startswith("guidance/answers/")) <= 12 for line in lines)
    assert all(line["guidance/replaced"] == 0 for line in lines)
    samples = (tmp_path / "methods-chord/samples.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(line)["source"] for line in samples} == {"policy", "teacher"}
    losses = [line["policy/loss/sft"] for line in lines]
    assert losses[0] > losses[1] > losses[2] > 0


def test_chords_token_weight_makes_the_same_term_smaller(world: Path, student: Path, tmp_path: Path) -> None:
    chord = EXAMPLES / "ampo-chord"
    lines = steps_of(chord / "chord.yaml", tmp_path, world, student, chord / "ampo_chord/__init__.py")
    assert all(0 < line["policy/phi/sft"] <= 0.25 for line in lines)
    assert all(0 < line["policy/loss/sft"] <= 0.5 * 0.25 / 2 for line in lines)


def test_a_router_leaves_failed_groups_to_the_supervised_term(world: Path, student: Path, tmp_path: Path) -> None:
    router = EXAMPLES / "ampo-router"
    lines = steps_of(router / "router.yaml", tmp_path, world, student, router / "ampo_router/__init__.py")
    for line in lines:
        assert line["groups/trained"] == pytest.approx(line["groups/sampled"] * (1 - line["guidance/triggered"]))
        assert line["policy/loss_off"] == line["guidance/replaced"] == 0
    assert all((line["policy/loss/sft"] > 0) == (line["guidance/triggered"] > 0) for line in lines)
    assert any(line["guidance/triggered"] > 0 for line in lines)


def test_many_teachers_are_weighed_by_how_well_the_student_follows_them(
    world: Path, student: Path, tmp_path: Path
) -> None:
    """Two of them are the student itself, one has random weights."""
    many, names = EXAMPLES / "ampo-many-teachers", ("chain", "short", "long")
    judges = [f"judges.{name}.path={student if name != 'long' else world / 'model'}" for name in names]
    files = [many / "ampo_many_teachers/__init__.py"]
    lines = steps_of(many / "many_teachers.yaml", tmp_path, world, student, *files, overrides=judges)
    weights = [[line[f"many_teachers/weight/{name}"] for name in names] for line in lines]
    assert weights[0] == pytest.approx([0.5, 0.5, 0.0], abs=1e-3)
    assert all(sum(step) == pytest.approx(1.0) and step[0] == pytest.approx(step[1]) for step in weights)
