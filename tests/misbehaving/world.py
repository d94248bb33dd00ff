"""A train job of two steps that takes a moment, with plugins of a file of its own, in a fork of a process that has done
nothing but import: what pytest's own has begun, a process group or threads, does not survive a fork.

Rollouts and verdicts are made up: four tokens each, half of the rollouts correct, so that groups with and without a
correct one occur. Everything else is what `ampo-run` runs.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ampo_registry.types import Grade, GradeRequest

from ampo_core.data.report import TruthCheck
from tests.forge import ROOT, own_environment

HEADER = '''
import math
import signal
import sys
from typing import Annotated, Any, ClassVar, Literal

from ampo_registry import *
from pydantic import Field


class Engine:
    """Four tokens for each seed: what a good engine gives."""

    def __init__(self):
        self.version = 0

    def generate(self, requests, options):
        return [[self.one(seed) for seed in request.seeds] for request in requests]

    def one(self, seed, **changed):
        text = "<answer>1</answer>" if seed % 2 else "<answer>0</answer>"
        fields = dict(token_ids=[5, 6, 7, 8], logprobs=[-1.0] * 4, text=text, finish_reason="length")
        return Rollout(**{**fields, "policy_version": self.version, **changed})

    def load_weights(self, weights, policy_version):
        list(weights)
        self.version = policy_version

    def sleep(self): ...
    def wake(self): ...
    def close(self): ...


class Canned(RolloutSpec):
    """Made-up rollouts."""

    type: Literal["canned"] = "canned"

    def build(self, context):
        return Engine()


class AllRight(Engine):
    def one(self, seed, **changed):
        return super().one(1, **changed)


class Right(RolloutSpec):
    """Made-up rollouts that are all correct."""

    type: Literal["right"] = "right"

    def build(self, context):
        return AllRight()

'''
FOOTER = """

@hookimpl
def ampo_specs():
    return [Canned, Right, *[spec for name, spec in sorted(globals().items()) if name == "Odd"]]
"""


class MadeUpGrader:
    """In the place of the worker processes."""

    def __init__(self, spec: Any, say: object = None) -> None:
        self.spec = spec

    def __enter__(self) -> MadeUpGrader:
        return self

    def __exit__(self, *error: object) -> None: ...

    def beside(self) -> MadeUpGrader:
        return self

    def close(self) -> None: ...

    def grade(self, requests: Sequence[GradeRequest], tries: int = 1) -> list[Grade]:
        return [self.spec.combine("1" in request.text, True) for request in requests]

    def check_truths(self, answers: Sequence[str]) -> list[TruthCheck]:
        return [TruthCheck() for _ in answers]

    def take_counts(self) -> Any:
        from ampo_core.grading.grader import GradeCounts

        return GradeCounts()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None: ...


def row(number: int) -> dict[str, Any]:
    """A question with two teacher answers."""
    return {
        "data_source": "toy",
        "prompt": [{"role": "user", "content": f"{number}+3="}],
        "reward_model": {"ground_truth": "1", "style": "rule"},
        "target_lst": [
            {"role": "assistant", "source": name, "content": f"{text} <answer>1</answer>"}
            for name, text in (("terse", "a"), ("chain", "b c"))
        ],
    }


def config(model: Path, data: Path) -> dict[str, Any]:
    """The train job."""
    return {
        "job": "train",
        "run": {"dir": str(data.parent / "runs")},
        "model": {"path": str(model), "dtype": "float32", "gradient_checkpointing": False},
        "deepspeed": {"zero_stage": 0},
        "resources": {"threads": 1},
        "data": {"train": [str(data)], "max_prompt_tokens": 64},
        "rollout": {"type": "canned", "group_size": 4, "max_response_tokens": 24},
        "guidance": {"selector": "random", "trigger": "always", "replacements": 1},
        "training": {
            "steps": 2,
            "questions_per_batch": 2,
            "questions_per_minibatch": 2,
            "tokens_per_microbatch": 256,
            "learning_rate": 1e-3,
        },
        "checkpoint": {"every": None},
    }


@dataclass(frozen=True)
class Ended:
    """How `ampo-run` ended, and all that it said."""

    code: int
    said: str


class World:
    """Runs `ampo-run` in forks of a process of its own; each has a folder of its own."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model, self.runs = folder, model, 0
        self.data = folder / "questions.jsonl"
        self.data.write_text("".join(json.dumps(row(number)) + "\n" for number in range(4)))
        self.config = folder / "train.yaml"
        self.config.write_text(yaml.safe_dump(config(model, self.data)))
        command = [sys.executable, "-m", "tests.misbehaving.world"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=own_environment()
        )

    def __call__(self, plugin: str, *arguments: str, config: Path | None = None) -> Ended:
        """`ampo-run` of the config with the classes of `plugin`."""
        self.runs += 1
        folder = self.folder / f"case-{self.runs}"
        folder.mkdir()
        (folder / "odd.py").write_text(HEADER + plugin + FOOTER)
        command = [str(config or self.config), f"run.dir={folder}", *arguments, "--plugin", str(folder / "odd.py")]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"folder": str(folder), "command": command}), file=self._process.stdin, flush=True)
        return Ended(int(self._process.stdout.readline()), (folder / "said").read_text("utf-8"))

    def close(self) -> None:
        """End the process that forks."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve() -> None:
    """Run each command line that comes on stdin in a fork, and answer with its exit code."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name in ("ampo_core.train", "ampo_core.cli.main", "ampo_core.jobs.prepare", "ampo_core.report.build"):
        importlib.import_module(name)
    importlib.import_module("ampo_registry.discovery").discover()
    # DeepSpeed tries compilers before its first engine; what is forked knows what came of it
    assert importlib.import_module("deepspeed.ops").__compatible_ops__
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(Path(order["folder"]), Path(order["folder"], "said"), order["command"])
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=answers, flush=True)


def _become(folder: Path, said: Path, command: Sequence[str]) -> None:
    """Run the command line in this fork, and end it."""
    code = 99
    try:
        out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        os.chdir(folder)
        makes_up = not any(part.startswith("reward=") for part in command)  # a reward of its own meets the real workers
        modules = ("ampo_core.loop.assemble", "ampo_core.jobs.prepare", "ampo_core.evaluation.job")
        for module in modules if makes_up else ():
            importlib.import_module(module).Grader = MadeUpGrader  # type: ignore[attr-defined]
        code = importlib.import_module("ampo_core.cli.main").main(command)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
