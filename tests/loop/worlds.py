"""What the tests of whole train jobs share: a small world, a student in it, and how to run a job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from ampo_registry.discovery import Plugins
from rich.console import Console

from ampo_core.config.load import load_config
from ampo_core.jobs.table import run_job
from ampo_core.run.environment import Environment

PREPARE = {
    "job": "prepare",
    "task": {
        "type": "labelled_arithmetic",
        "questions": 40,
        "levels": {1: 0.5, 2: 0.5},
        "heldout_levels": [1],
        "heldout_per_level": 4,
        "warmup_examples": 300,
        "warmup_levels": {1: 1.0},
    },
    "reward": {"type": "math_verify", "workers": 1},
}

TRAIN = {
    "job": "train",
    "run": {"seed": 3},
    "model": {"dtype": "float32", "gradient_checkpointing": False},
    "data": {"max_prompt_tokens": 64},
    "rollout": {"type": "transformers", "group_size": 4, "max_response_tokens": 40},
    "reward": {"type": "math_verify", "workers": 1},
    "training": {
        "steps": 3,
        "questions_per_batch": 6,
        "questions_per_minibatch": 3,
        "tokens_per_microbatch": 1024,
        "learning_rate": 1e-3,
    },
    "deepspeed": {"zero_stage": 0},
    "checkpoint": {"every": 2},
    "resources": {"threads": 1},
}


def run(
    config: Mapping[str, Any], folder: Path, plugins: Plugins, *overrides: str, allow_changes: bool = False
) -> tuple[Path, str]:
    """The job's output and what it printed; `folder` gets the config and the run."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
    loaded = load_config(path, [f"run.dir={folder}", *overrides], plugins)
    screen = StringIO()
    console = Console(file=screen, width=100)
    output = run_job(loaded.job, Environment.of(loaded, plugins, console=console, allow_changes=allow_changes))
    assert output is not None
    return output, screen.getvalue()


def train(world: Path, student: Path, **blocks: Any) -> dict[str, Any]:
    """`TRAIN` with these blocks. A judge of a folder without a path is the student itself."""
    config = json.loads(json.dumps(TRAIN))
    config["model"]["path"] = str(student)
    config["data"]["train"] = [str(world / "train.parquet")]
    for name, block in blocks.items():
        config[name] = {**config.get(name, {}), **block} if isinstance(block, dict) else block
    for judge in config.get("judges", {}).values():
        if "url" not in judge:
            judge.setdefault("path", str(student))
    return config


def metrics_of(policy: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what depends on the clock."""
    lines = (policy.parents[2] / "metrics.jsonl").read_text("utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("time/")} for line in lines]
