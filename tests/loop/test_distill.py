"""On-policy distillation in whole train jobs: a teacher that is the student, what is forwarded, and going on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from ampo_plugins.advantages.distill import Distillation
from ampo_registry import ConfigError, DataError
from ampo_registry.discovery import Plugins

from ampo_core.learner.learner import Learner
from tests.loop.worlds import metrics_of, run, train

pytestmark = pytest.mark.process
TWIN: dict[str, Any] = {"judges": {"twin": {"type": "transformers"}}}


def distilled(world: Path, student: Path, advantage: dict[str, Any], **blocks: Any) -> dict[str, Any]:
    """A train config with the student itself as the judge `twin`, without guidance unless said."""
    objective = {"advantage": {"type": "distill", **advantage}, "entropy_coefficient": 0.0}
    return train(world, student, **{**TWIN, "guidance": None, "objective": objective, **blocks})


@pytest.fixture
def ratios(monkeypatch: pytest.MonkeyPatch) -> list[list[torch.Tensor]]:
    """log π_judge − log π_old of the samples of each step."""
    steps: list[list[torch.Tensor]] = []
    original = Distillation._log_ratios

    def spied(self: Distillation, *given: Any) -> Any:
        found = original(self, *given)
        steps.append(list(found.values()))
        return found

    monkeypatch.setattr(Distillation, "_log_ratios", spied)
    return steps


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("loss", ["policy_gradient", "clip"])
def test_a_teacher_that_is_the_student_leaves_it_as_it_is(
    world: Path, student: Path, plugins: Plugins, tmp_path: Path, ratios: list[Any], ahead: int, loss: str
) -> None:
    """Sampled ahead, the second batch is of the start's policy too: its recorded log-probs are π_old's."""
    config = distilled(world, student, {"judge": "twin", "reward_weight": 1.0}, rollout={"ahead": ahead})
    config["objective"]["on_policy"] = {"loss": loss}
    policy, _ = run(config, tmp_path, plugins, "training.steps=2")
    lines = metrics_of(policy)
    largest = [max(float(ratio.abs().max()) for ratio in step) for step in ratios]
    assert len(ratios[0]) == len(ratios[1]) == 24
    assert largest[0] < 1e-4
    assert (largest[1] < 1e-4) == bool(ahead)  # the reward has moved the policy meanwhile
    assert abs(lines[0]["distill/kl/twin"]) < 1e-5
    assert lines[0]["policy/grad_norm"] > 1e-3


def test_pi_old_is_forwarded_once_though_there_are_several_mini_batches(
    world: Path, student: Path, plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without distillation the second mini-batch is forwarded before the first update; with it that is known, and one
    rollout in eight is forwarded for its entropy alone."""
    forwarded: list[tuple[str, int]] = []
    for name in ("logprobs", "logprobs_and_entropies"):
        original = getattr(Learner, name)

        def spied(self: Learner, pairs: Sequence[Any], *, _own: Any = original, _name: str = name, **more: Any) -> Any:
            forwarded.append((_name, len(pairs)))
            return _own(self, pairs, **more)

        monkeypatch.setattr(Learner, name, spied)
    config = distilled(world, student, {"judge": "twin"})
    run(config, tmp_path / "distilled", plugins, "training.steps=2", "training.epochs_per_batch=2")
    first, _, second, before = forwarded
    assert first[0] == second[0] == "logprobs"
    assert 20 <= second[1] <= 24  # equal responses of a question count once
    assert before == ("logprobs_and_entropies", 3)
    forwarded.clear()
    always = train(world, student, guidance=None, objective={"entropy_coefficient": 0.01})
    run(always, tmp_path / "grpo", plugins, "training.steps=2", "training.epochs_per_batch=2")
    assert forwarded[-1] == ("logprobs_and_entropies", 12)


def test_it_goes_on_to_the_same_bits(world: Path, student: Path, plugins: Plugins, tmp_path: Path) -> None:
    falling = {"type": "linear", "start": 1.0, "end": 0.1, "steps": 4}
    advantage = {"judge": "twin", "weight": falling, "reward_weight": 1.0}
    config = distilled(world, student, advantage, guidance={"trigger": "always"})
    whole, _ = run(config, tmp_path / "whole", plugins, "training.steps=4")
    run(config, tmp_path / "again", plugins, "training.steps=2")
    again, screen = run(config, tmp_path / "again", plugins, "training.steps=4", allow_changes=True)
    assert "goes on after step 2 of 4" in screen
    assert (again / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert metrics_of(again) == metrics_of(whole)


def test_each_teacher_judges_what_its_answer_was_chosen_for(
    world: Path, student: Path, plugins: Plugins, tmp_path: Path
) -> None:
    """Judges named like the pool's teachers: for every question one is selected, whether its group fired or not."""
    names = ["chain", "verbose"]
    guidance = {"teacher_pool": {"type": "dataset", "teachers": names}, "selector": "random"}
    judges = {name: {"type": "transformers"} for name in names}
    config = distilled(world, student, {"judge": "selected"}, judges=judges, guidance=guidance)
    lines = metrics_of(run(config, tmp_path, plugins)[0])
    assert {f"distill/kl/{name}" for name in names} <= {key for line in lines for key in line}
    assert max(abs(lines[0].get(f"distill/kl/{name}", 0.0)) for name in names) < 1e-5


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "unknown": ({"judge": "twinn"}, {}, r"objective\.advantage.*'twinn'(?s:.*)'twin'"),
    "no field": ({"field": "expert"}, {}, r"advantage\.field: expert of question 1 is None"),
    "no teacher's": ({}, {"guidance": {}}, r"no judge is named like 'chain', 'cipher', 'terse', 'verbose'"),
    "no guidance": ({}, {}, r"(?s:objective\.advantage.*it reads which teacher answer was selected)"),
    "no model": ({"judge": "twin"}, {"judges": {"twin": {"type": "transformers", "path": "nowhere"}}}, r"judges\.twin"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_before_anything_starts(
    world: Path, student: Path, plugins: Plugins, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    advantage, blocks, message = REFUSED[case]
    monkeypatch.setattr(Learner, "__init__", lambda *given, **more: pytest.fail("a model was loaded"))
    with pytest.raises((ConfigError, DataError), match=message):
        run(distilled(world, student, advantage, **blocks), tmp_path, plugins)
    assert not (tmp_path / "run").exists()


def test_a_row_that_names_the_start_model_is_refused_where_nothing_loads_it(
    world: Path, student: Path, plugins: Plugins, tmp_path: Path
) -> None:
    rows = pq.read_table(world / "train.parquet").to_pylist()
    named = [json.dumps({**row, "expert": "start"}) + "\n" for row in rows]
    (tmp_path / "named.jsonl").write_text("".join(named), encoding="utf-8")
    config = distilled(world, student, {"field": "expert"}, data={"train": [str(tmp_path / "named.jsonl")]})
    with pytest.raises(DataError, match="expert of question 1 is 'start'; expected the name of a judge: policy, twin"):
        run(config, tmp_path, plugins)
    assert not (tmp_path / "run").exists()
    config["objective"]["kl"] = {"coefficient": 0.01}
    lines = metrics_of(run(config, tmp_path, plugins, "training.steps=1")[0])
    assert abs(lines[0]["distill/kl/start"]) < 1e-5
