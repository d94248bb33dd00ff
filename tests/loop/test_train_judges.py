"""Judges in whole train jobs on a small world: the same numbers whoever gives them, and memory for the sampler."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ampo_plugins.rollouts.transformers.engine import TransformersEngine
from ampo_registry import ConfigError
from ampo_registry.discovery import Plugins

from ampo_core.learner.frozen import FrozenModel
from tests.loop.worlds import metrics_of, run, train
from tests.plugins.judges.server import PromptServer

pytestmark = pytest.mark.process


def distilled(world: Path, student: Path, judge: Mapping[str, Any], **blocks: Any) -> dict[str, Any]:
    """A train config without guidance that is distilled from `judge`."""
    objective = {"advantage": {"type": "distill", "judge": "other", "reward_weight": 1.0}}
    return train(world, student, guidance=None, judges={"other": dict(judge)}, objective=objective, **blocks)


def test_a_folder_and_a_server_of_it_train_alike(world: Path, student: Path, plugins: Plugins, tmp_path: Path) -> None:
    server = PromptServer(world / "model")
    found = []
    for judge in ({"type": "transformers", "path": str(world / "model")}, {"type": "endpoint", "url": server.url}):
        config = distilled(world, student, judge)
        found.append(metrics_of(run(config, tmp_path / judge["type"], plugins, "training.steps=2")[0]))
    server.close()
    for folder, far in zip(*found, strict=True):
        assert far == pytest.approx(folder, rel=1e-3, abs=1e-5)
        assert folder["distill/kl/other"] > 0
    assert sum(route == "v1/completions" for route, _ in server.asked) > 2 * 6 * 4


def test_a_judge_leaves_the_accelerator_before_anything_is_sampled(
    world: Path, student: Path, plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    def noted(owner: Any, name: str, word: str) -> None:
        plain = getattr(owner, name)

        def method(self: Any, *arguments: Any, **options: Any) -> Any:
            events.append(word)
            return plain(self, *arguments, **options)

        monkeypatch.setattr(owner, name, method)

    noted(FrozenModel, "logprobs", "judge")
    noted(FrozenModel, "sleep", "asleep")
    noted(TransformersEngine, "generate", "sample")
    config = distilled(world, student, {"type": "transformers", "path": str(world / "model")})
    config["objective"]["group_filter"] = {"resample": True}
    run(config, tmp_path, plugins, "training.steps=2")
    text = " ".join(events)
    assert events.count("sample") > 2
    assert re.search("judge( judge)* sample", text) is None
    assert re.search("judge asleep( asleep)* sample", text)
    assert events.count("judge") == 2  # one call of the credit a step, however often it samples


@pytest.mark.parametrize(
    ("judge", "text"),
    [
        ({"type": "endpoint", "url": "http://127.0.0.1:9"}, r"judges\.other\.url: .*127\.0\.0\.1:9.*refused"),
        (
            {"type": "transformers", "path": "nowhere/there"},
            r"judges\.other\.path: no model could be loaded from nowhere",
        ),
        (
            {"type": "transformers", "path": "tests/golden/tokenizer"},
            r"judges\.other\.path: no model could be loaded from tests/golden/tok",
        ),
    ],
    ids=["server down", "no folder", "no model"],
)
def test_a_judge_that_cannot_serve_is_said_before_a_model_is_loaded(
    judge: dict[str, Any],
    text: str,
    world: Path,
    student: Path,
    plugins: Plugins,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ampo_core.loop.assemble.Learner", None)
    monkeypatch.setattr("ampo_plugins.server.BACKOFF_S", 0.01)
    with pytest.raises(ConfigError, match=text):
        run(distilled(world, student, judge), tmp_path, plugins)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
