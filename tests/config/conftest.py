"""A small valid train config, and how to load a variation of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ampo_registry import Message, TaskQuestion
from ampo_registry.discovery import Plugins, discover

from ampo_core.config.load import LoadedConfig, load_config
from ampo_core.data.contract_files import write_questions

BASE = """\
job: train
model: {path: model, dtype: float32}
data: {train: [train.parquet], max_prompt_tokens: 16}
rollout: {type: transformers, group_size: 4, max_response_tokens: 32}
training: {questions_per_batch: 4, questions_per_minibatch: 2, tokens_per_microbatch: 64}
deepspeed: {zero_stage: 0}
"""


@pytest.fixture(scope="session")
def plugins() -> Plugins:
    return discover()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with base.yaml and all that it names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "base.yaml").write_text(BASE, encoding="utf-8")
    question = TaskQuestion((Message("user", "1 + 1"),), "2", "sums")
    write_questions(tmp_path / "train.parquet", [question], "train", "math")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
    return tmp_path


@pytest.fixture
def load(folder: Path, plugins: Plugins) -> Callable[..., LoadedConfig]:
    """load(text, *overrides): the config `text`, which extends base.yaml unless it names a job itself."""

    def load_text(text: str = "", *overrides: str) -> LoadedConfig:
        head = "" if text.startswith("job:") else "extends: base.yaml\n"
        Path("c.yaml").write_text(head + text, encoding="utf-8")
        return load_config("c.yaml", overrides, plugins)

    return load_text
