"""The quickstart's own configs, end to end, made tiny: a world of 24 questions, two steps of everything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ampo_core.config.yaml_source import dump_yaml
from ampo_core.jobs import pipeline

pytestmark = pytest.mark.process

CONFIGS = Path(__file__).parents[2] / "configs"
SETS = ("level2", "level3", "level4", "level5", "level6")
TRAIN = {"training.steps": 2, "training.questions_per_batch": 4, "training.questions_per_minibatch": 2}
ALONE = {"resources.threads": 1}
GRADED = {"reward.workers": 1, "reward.timeout_s": 60}
TINY = {
    "prepare": {"task.questions": 24, "task.heldout_per_level": 2, "task.warmup_examples": 64, **GRADED},
    "warmup": {"training.epochs": 1, "training.batch": 32, **ALONE},
    "grpo": {**TRAIN, **ALONE, **GRADED},
    "ampo": {**TRAIN, **ALONE, **GRADED},
    "evaluate": {f"evaluation.sets.{name}": {"samples": 2, "pass_at": [2]} for name in SETS} | ALONE | GRADED,
}


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory, environment_of: Callable[..., Any]) -> tuple[Path, str]:
    """(run folder, what was printed) of the tiny quickstart."""
    folder = tmp_path_factory.mktemp("quickstart")
    _, shipped = environment_of(CONFIGS / "quickstart.yaml")
    stages = [{**stage, "overrides": TINY[stage["name"]]} for stage in shipped.config["stages"]]
    config = {"job": "pipeline", "run": {"name": "tiny", "dir": str(folder)}, "stages": stages}
    (folder / "tiny.yaml").write_text(dump_yaml(config))
    job, environment = environment_of(folder / "tiny.yaml")
    return pipeline.run(job, environment), environment.console.file.getvalue()


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_every_stage_finishes(quickstart: tuple[Path, str]) -> None:
    folder, printed = quickstart
    assert all((folder / name / "done").exists() for name in TINY)
    assert "stage 5/5 evaluate: done" in printed


def test_both_students_train_from_the_same_start(quickstart: tuple[Path, str]) -> None:
    folder, _ = quickstart
    grpo, ampo = metrics(folder / "grpo"), metrics(folder / "ampo")
    assert [line["step"] for line in ampo] == [line["step"] for line in grpo] == [1, 2]
    # the first rollouts are the same; only what is trained on differs
    assert ampo[0]["reward/mean"] == grpo[0]["reward/mean"]
    assert "guidance/replaced" not in grpo[0]
    assert ampo[0]["guidance/replaced"] > 0
    assert ampo[0]["policy/loss"] != grpo[0]["policy/loss"]


def test_it_ends_with_a_table_its_caveats_and_curves(quickstart: tuple[Path, str]) -> None:
    folder, printed = quickstart
    assert all(name in printed for name in ("start", "grpo", "ampo", *SETS, "avg@2", "pass@2", "entropy"))
    assert "exploration is the bottleneck" in printed
    assert (folder / "evaluate" / "curves.png").stat().st_size > 10_000
