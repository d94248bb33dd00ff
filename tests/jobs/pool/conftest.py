"""A small pool: two random models and a book of recorded answers, a student, ten questions."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ampo_registry.discovery import Plugins, discover
from rich.console import Console

from ampo_core.config.load import load_config
from ampo_core.jobs.table import run_job
from ampo_core.run.environment import Environment

PLUGIN = Path(__file__).with_name("pool_plugin.py")
STOPS = list("0123456789abcdefghijklmnop")


def row(number: int, text: str = "What is {} + 1?") -> dict[str, Any]:
    recorded = [f"The book says {number} and then {number + 1}.", f"It is {number + 1}."]
    return {
        "data_source": "sums",
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text.format(number)}],
        "ability": "math",
        "reward_model": {"ground_truth": str(number + 1), "style": "rule"},
        "extra_info": {"index": number, "level": number % 3},
        "target_lst": [{"role": "assistant", "source": "book", "content": answer} for answer in recorded],
    }


@pytest.fixture(scope="session")
def plugins() -> Plugins:
    return discover([PLUGIN])


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_untied_model: Path) -> dict[str, Any]:
    """The config of a pool in JSON types; nothing of it needs the network."""
    folder = tmp_path_factory.mktemp("pool")
    rows = [*(row(number) for number in range(10)), row(3), row(99, "Why {}?" + " Why?" * 40)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rows))

    def model(path: Path) -> dict[str, Any]:
        return {"path": str(path), "dtype": "float32", "stop": STOPS}

    return {
        "job": "pool",
        "run": {"name": "pool", "seed": 5},
        "questions": [str(folder / "questions.jsonl")],
        "data": {"max_prompt_tokens": 64},
        "student": {"path": str(tiny_model)},
        "teachers": [
            {"name": "tied", "model": model(tiny_model), "temperature": 1.0, "max_response_tokens": 12},
            {"name": "book", "recorded": "book"},
            {
                "name": "untied",
                "model": model(tiny_untied_model),
                "system_prompt": "drop",
                "temperature": 1.0,
                "max_response_tokens": 12,
            },
        ],
        "answers_per_question": 3,
        "shard_questions": 4,
        "compositions": {"all": ["tied", "book", "untied"], "book": ["book"], "models": ["tied", "untied"]},
        "rollout": {"type": "transformers"},
        "reward": {"type": "drawn", "workers": 1, "max_error_rate": 1.0},
        "resources": {"threads": 1},
    }


@dataclass
class Build:
    """A pool that was built in a folder of its own."""

    folder: Path
    config: dict[str, Any]
    plugins: Plugins
    said: str = ""

    @property
    def run(self) -> Path:
        return self.folder / self.config["run"]["name"]

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.run / "summary.json").read_text())

    def write(self) -> Path:
        path = self.folder / "pool.yaml"
        path.write_text(yaml.safe_dump({**self.config, "run": {**self.config["run"], "dir": str(self.folder)}}))
        return path

    def __call__(self, *overrides: str, allow: bool = False) -> Path:
        """Build, or go on; what was said is kept."""
        loaded = load_config(self.write(), overrides, self.plugins)
        loaded.require_ready()
        screen = io.StringIO()
        console = Console(file=screen, width=200)
        environment = Environment.of(loaded, self.plugins, console=console, allow_changes=allow)
        try:
            out = run_job(loaded.job, environment)
        finally:
            self.said = screen.getvalue()
        assert out == self.run / "out"
        return out

    def shards(self, teacher: str) -> list[Path]:
        return sorted(self.run.glob(f"shards/{teacher}-*/*.parquet"))

    def files(self) -> dict[str, bytes]:
        """The contents of all that a user reads of a build, and of its shards."""
        paths = [*self.run.glob("out/*"), *self.run.glob("shards/*/*"), self.run / "summary.json"]
        return {str(path.relative_to(self.run)): path.read_bytes() for path in paths}

    def copy(self, folder: Path) -> Build:
        shutil.copytree(self.run, folder / self.run.name)
        return Build(folder, self.config, self.plugins)


@pytest.fixture
def build(tmp_path: Path, world: dict[str, Any], plugins: Plugins) -> Callable[..., Build]:
    """Makes a build with keys of the world's config replaced, not yet run."""
    made: list[Path] = []

    def make(**keys: Any) -> Build:
        folder = tmp_path / f"build{len(made)}"
        folder.mkdir()
        made.append(folder)
        return Build(folder, {**world, **keys}, plugins)

    return make


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, world: dict[str, Any], plugins: Plugins) -> Build:
    """The world's pool, built once without interruption."""
    whole = Build(tmp_path_factory.mktemp("built"), world, plugins)
    whole()
    return whole
