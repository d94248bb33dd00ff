"""A small suite: a world shared by all runs, two trained students, one evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ampo_registry.discovery import Plugins, discover

from ampo_core.config.load import LoadedConfig, load_config

FILES = {
    "world.yaml": """\
job: prepare
task: {type: labelled_arithmetic, questions: 8, heldout_per_level: 2, warmup_examples: 20}
reward: {type: math_verify, workers: 1}
""",
    "sft.yaml": """\
job: sft
model: {path: "${stages.world.out}/model", dtype: float32, gradient_checkpointing: false}
data: {train: ["${stages.world.out}/sft.parquet"], format: messages}
training: {epochs: 1, batch: 10, accumulation: 1}
deepspeed: {zero_stage: 0}
resources: {threads: 1}
""",
    "evaluate.yaml": """\
job: evaluate
models: {any: {path: "${runs.this.out}", dtype: float32}}
data: {max_prompt_tokens: 64}
rollout: {type: transformers, max_response_tokens: 8}
reward: {type: math_verify, workers: 1}
evaluation: {sets: {level2: {path: "${stages.world.out}/heldout/level2.parquet", samples: 2}}}
resources: {threads: 1}
""",
    "suite.yaml": """\
job: suite
run: {name: s}
seeds: [0, 1]
parallel: 2
stages: [{name: world, config: world.yaml}]
runs:
  start: {title: "the start", model: "${stages.world.out}/model"}
  one: sft.yaml
  two: {title: "one more", config: sft.yaml, overrides: {model.path: "${runs.one.out}"}}
  three: {config: sft.yaml, overrides: {training.learning_rate: 1.0e-3}}
evaluations: {sampled: evaluate.yaml}
tables:
  first: {title: "First | table", rows: [start, two], note: "A <toy>."}
  second: {rows: [one, three], baseline: three}
""",
}


@pytest.fixture(scope="session")
def plugins() -> Plugins:
    return discover()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with suite.yaml and the configs that it names."""
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.fixture
def load(folder: Path, plugins: Plugins) -> Callable[..., LoadedConfig]:
    """load(*overrides): suite.yaml."""
    return lambda *overrides: load_config("suite.yaml", overrides, plugins)
