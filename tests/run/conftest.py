"""A world that trains in seconds, and runs of it that end when they are told to."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.forge import COMMAND, Forge, own_environment
from tests.loop.in_ranks import in_two_ranks

PLUGIN = Path(__file__).with_name("ending_plugin.py")


def row(number: int) -> dict[str, Any]:
    answer = str(number + 3)
    return {
        "data_source": "toy",
        "prompt": [{"role": "user", "content": f"{number}+3="}],
        "reward_model": {"ground_truth": answer, "style": "rule"},
        "target_lst": [
            {"role": "assistant", "source": "terse", "content": f"<answer>{answer}</answer>"},
            {"role": "assistant", "source": "chain", "content": f"{number} 3 <answer>{answer}</answer>"},
            {"role": "assistant", "source": "wrong", "content": "<answer>0</answer>"},
        ],
    }


@pytest.fixture(scope="session")
def configs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with train.yaml and sft.yaml."""
    folder = tmp_path_factory.mktemp("resume")
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps(row(number)) + "\n" for number in range(10)))
    model = {"path": str(tiny_model), "dtype": "float32", "gradient_checkpointing": False}
    shared = {
        "model": model,
        "deepspeed": {"zero_stage": 0},
        "resources": {"threads": 1},
        "tracking": ["tensorboard"],
        "run": {"dir": str(folder / "runs"), "seed": 3},
    }
    train = {
        "job": "train",
        **shared,
        "data": {"train": [str(data)], "max_prompt_tokens": 64},
        "rollout": {"type": "transformers", "group_size": 4, "max_response_tokens": 12},
        "reward": {"type": "math_verify", "workers": 1},
        "guidance": {"selector": "taking_turns", "replacements": 1},
        "training": {
            "steps": 5,
            "questions_per_batch": 4,
            "questions_per_minibatch": 2,
            "tokens_per_microbatch": 256,
            "learning_rate": 1e-3,
        },
        "evaluation": {"every": 2, "sets": {"toy": {"path": str(data), "limit": 2}}},
        "checkpoint": {"every": 2, "keep": 1},
    }
    sft = {
        "job": "sft",
        **shared,
        "model": {**model, "lora": {"rank": 4, "dropout": 0.3}},
        "data": {"train": [str(data)], "format": "pool"},
        "training": {"epochs": 2, "batch": 6, "accumulation": 1, "learning_rate": 1e-2, "schedule": "linear"},
        "checkpoint": {"every": 2},
    }
    (folder / "train.yaml").write_text(yaml.safe_dump(train))
    (folder / "sft.yaml").write_text(yaml.safe_dump(sft))
    return folder


@dataclass(frozen=True)
class Ended:
    """How `ampo-run` ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Runs:
    """Starts `ampo-run` in processes of their own; their folders stand beside each other."""

    configs: Path
    forge: Forge

    def __call__(
        self, config: str, name: str, *arguments: str, end: str = "nowhere:0", forge: Forge | None = None
    ) -> Ended:
        """Run `config` under the name; `end` is a moment of ending_plugin.py."""
        command = self._command(config, name, *arguments)
        done = (forge or self.forge).run(*command, environment={"AMPO_TEST_END": end})
        return Ended(done.returncode, done.stdout, done.stderr)

    def anew(self, config: str, name: str, *arguments: str) -> Ended:
        """The same in an interpreter of its own, whose hashes, and so the order of its sets, are others."""
        command = [*COMMAND, *self._command(config, name, *arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=own_environment(), timeout=300)
        return Ended(done.returncode, done.stdout, done.stderr)

    def in_two_ranks(self, *commands: Sequence[str]) -> list[str]:
        """What runs of two ranks that do not die print; each command begins with a config and a name."""
        return in_two_ranks(*(self._command(*command) for command in commands))

    def _command(self, config: str, name: str, *arguments: str) -> list[str]:
        return [str(self.configs / config), f"run.name={name}", *arguments, "--plugin", str(PLUGIN)]

    def folder(self, name: str) -> Path:
        return self.configs / "runs" / name

    def metrics(self, name: str) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl without what depends on the clock."""
        lines = (self.folder(name) / "metrics.jsonl").read_text("utf-8").splitlines()
        return [{k: v for k, v in json.loads(line).items() if not k.startswith("time/")} for line in lines]

    def checkpoints(self, name: str) -> list[str]:
        return sorted(path.name for path in (self.folder(name) / "checkpoints").iterdir())

    def assert_equal(self, one: str, other: str) -> None:
        """The two runs have the same metrics, samples, best and final weights, bit for bit."""
        assert self.metrics(one) == self.metrics(other)
        assert self.checkpoints(one) == self.checkpoints(other)
        final = json.loads((self.folder(one) / "done").read_text())["output"]
        files: Sequence[str] = ["samples.jsonl", "checkpoints/best.json", f"{final}/model.safetensors", "done"]
        for file in files:
            paths = [self.folder(name) / file for name in (one, other)]
            assert [path.exists() for path in paths] in ([True] * 2, [False] * 2), file
            if paths[0].exists():
                assert paths[0].read_bytes() == paths[1].read_bytes(), file


@pytest.fixture(scope="session")
def runs(configs: Path, forge: Forge) -> Runs:
    return Runs(configs, forge)
