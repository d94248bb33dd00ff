"""A tiny world for whole runs of `ampo-run` as a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.forge import COMMAND, own_environment

WAIT_S = 120.0
"""Far beyond what a run takes here; a machine may be busy."""


class Run:
    """`ampo-run` in the background, in a session of its own, with what it says in a file; `under` another program."""

    def __init__(self, folder: Path, *arguments: object, under: Sequence[str] = (), **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log.txt"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*under, *COMMAND, *map(str, arguments)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=own_environment(PYTHONUNBUFFERED="1", PYTHONFAULTHANDLER="1", **environment),
                cwd=folder,
                start_new_session=True,
            )
        self._started: set[psutil.Process] = set()

    @property
    def said(self) -> str:
        """All that it has said so far."""
        return self.log.read_text("utf-8")

    def ranks(self) -> list[psutil.Process]:
        """The processes of its ranks, as far as they have started."""
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "ampo_core.cli.rank" in child.cmdline()]

    def wait_for(self, text: str) -> None:
        """Until it has said `text`; remembers all processes that it has started by then."""
        deadline = time.monotonic() + WAIT_S
        while text not in self.said:
            assert self.process.poll() is None, f"ended before it said {text!r}:\n{self.said}"
            assert time.monotonic() < deadline, f"never said {text!r}:\n{self.said}"
            time.sleep(0.05)
        self._started |= set(psutil.Process(self.process.pid).children(recursive=True))

    def end(self) -> int:
        """Its exit code. One that hangs fails the test, with what it has said and where its processes stand."""
        try:
            return self.process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it did not end within {WAIT_S:.0f} s:\n{self.stacks()}")

    def stacks(self) -> str:
        """All that it has said; if it still runs, it is ended, and its processes say last where they stood."""
        if self.process.poll() is None:
            process = psutil.Process(self.process.pid)
            for one in (*reversed(process.children(recursive=True)), process):
                one.send_signal(signal.SIGABRT)
            self.process.wait(30)
        return self.said

    def survivors(self) -> list[psutil.Process]:
        """Which of the processes that it had started still run, long after its end."""
        return list(psutil.wait_procs(self._started, timeout=30)[1])

    def kill(self) -> None:
        """End it, whatever it does; its ranks end with it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """Starts an `ampo-run`, and ends it when the test is over."""
    runs: list[Run] = []

    def begin(*arguments: object, **options: Any) -> Run:
        runs.append(Run(tmp_path / f"run{len(runs)}", *arguments, **options))
        return runs[-1]

    yield begin
    for run in runs:
        run.kill()


def _question(number: int) -> dict[str, Any]:
    return {
        "data_source": "sums",
        "prompt": [{"role": "user", "content": f"What is {number} + 1?"}],
        "reward_model": {"ground_truth": str(number + 1), "style": "rule"},
    }


def _example(number: int) -> dict[str, Any]:
    turns = [("user", f"What is {number} + 1?"), ("assistant", str(number + 1))]
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


@pytest.fixture(scope="session")
def configs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Callable[[str], Path]:
    """The config of a two-rank train or sft job on a tiny random model."""
    folder = tmp_path_factory.mktemp("launched")
    for name, row in (("questions", _question), ("examples", _example)):
        lines = [json.dumps(row(number)) + "\n" for number in range(12)]
        (folder / f"{name}.jsonl").write_text("".join(lines), "utf-8")
    shared: Mapping[str, Any] = {
        "model": {"path": str(tiny_model), "dtype": "float32", "gradient_checkpointing": False},
        "deepspeed": {"zero_stage": 0},
        "resources": {"devices": 2, "threads": 1},
        "checkpoint": {"every": None, "best": None},
    }
    train = {
        "job": "train",
        "data": {"train": [str(folder / "questions.jsonl")], "max_prompt_tokens": 64},
        "rollout": {"type": "transformers", "group_size": 2, "max_response_tokens": 8},
        "reward": {"type": "math_verify", "workers": 1},
        "guidance": None,
        "training": {
            "steps": 100000,
            "questions_per_batch": 2,
            "questions_per_minibatch": 2,
            "tokens_per_microbatch": 256,
        },
        "tracking": [],
    }
    sft = {
        "job": "sft",
        "data": {"train": [str(folder / "examples.jsonl")], "format": "messages", "max_tokens": 64},
        "training": {"epochs": 1, "batch": 6, "accumulation": 1, "tokens_per_microbatch": 256},
    }
    for job in (train, sft):
        (folder / f"{job['job']}.yaml").write_text(yaml.safe_dump({**shared, **job}), "utf-8")
    return lambda name: folder / f"{name}.yaml"
