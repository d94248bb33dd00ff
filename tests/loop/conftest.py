"""The small world, made once for all tests of whole train jobs in a process."""

from __future__ import annotations

from pathlib import Path

import pytest
from ampo_registry.discovery import Plugins, discover

from tests.loop.worlds import PREPARE, run


@pytest.fixture(scope="session")
def plugins() -> Plugins:
    return discover()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, plugins: Plugins) -> Path:
    return run(PREPARE, tmp_path_factory.mktemp("world"), plugins)[0]


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory, plugins: Plugins, world: Path) -> Path:
    """A student that answers level 1 now and then, so that groups with and without a correct answer occur."""
    sft = {
        "job": "sft",
        "model": {"path": str(world / "model"), "dtype": "float32", "gradient_checkpointing": False},
        "data": {"train": [str(world / "sft.parquet")], "format": "messages", "max_tokens": 128},
        "training": {
            "epochs": 8,
            "batch": 30,
            "accumulation": 1,
            "learning_rate": 5e-3,
            "tokens_per_microbatch": 2048,
        },
        "deepspeed": {"zero_stage": 0},
        "resources": {"threads": 1},
    }
    return run(sft, tmp_path_factory.mktemp("student"), plugins)[0]
