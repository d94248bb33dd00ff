"""A process that has the imports behind it and forks an `ampo-run` at once, for which a start would take seconds.

What it forks is a process of its own: arguments, environment, folder, output, signals and exit code are those of
`python -m ampo_core.cli.main`. What it shares with the others is the seed of Python's hashes, and what is read when
the interpreter or torch starts (OMP_NUM_THREADS); where that matters a test starts the command line anew.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "ampo_core.cli.main")
JOBS = (
    "deepspeed",
    "math_verify",
    "matplotlib.pyplot",
    "multiprocessing.forkserver",
    "torch.distributed.launcher.api",
    "torch.utils.tensorboard",
    "transformers.models.qwen2.modeling_qwen2",
    "pebble.pool.process",
    "ampo_core.cli.listing",
    "ampo_core.report.build",
)
"""What the jobs import sooner or later, beside their own modules. Never the command line itself: every process runs it
as its main module."""
VLLM = (*JOBS, "vllm.entrypoints.llm", "vllm.v1.worker.cpu_worker", "vllm.v1.engine.llm_engine")
POLL_S = 0.01
RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "AMPO_ALONE")


def own_environment(**more: str) -> dict[str, str]:
    """This environment without what tests of this process may have left of ranks, and with `more`."""
    kept = {name: value for name, value in os.environ.items() if name not in RANKS}
    return {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more}


class Forge:
    """The client's side. `modules` are imported once, by the process that forks the others."""

    def __init__(self, modules: Sequence[str] = JOBS) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forge", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            # the other way to look for GPUs would spoil CUDA for what is forked
            env=own_environment(PYTORCH_NVML_BASED_CUDA_CHECK="1"),
        )

    def start(
        self,
        *arguments: object,
        out: Path,
        err: Path | None = None,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Forked:
        """`ampo-run` with these arguments in the background, in a session of its own; `err` is `out` if not given."""
        order = {
            "arguments": [str(argument) for argument in arguments],
            "environment": own_environment(**(environment or {})),
            "folder": str(folder or Path.cwd()),
            "out": str(out),
            "err": None if err is None else str(err),
        }
        return Forked(self, self._ask(order))

    def run(
        self,
        *arguments: object,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """`ampo-run` with these arguments, as subprocess.run gives it back; it is killed after `timeout` seconds."""
        with tempfile.TemporaryDirectory() as said:
            out, err = Path(said, "out"), Path(said, "err")
            forked = self.start(*arguments, out=out, err=err, folder=folder, environment=environment)
            try:
                code = forked.wait(timeout)
            finally:
                forked.kill()
            return subprocess.CompletedProcess(arguments, code, out.read_text("utf-8"), err.read_text("utf-8"))

    def wait(self, pid: int, seconds: float) -> int | None:
        """The exit code of what was forked, negative for a signal; None if it still runs after so long."""
        return self._ask({"wait": pid, "seconds": seconds})

    def close(self) -> None:
        """End it and all that it has forked."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, question: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the forge has ended"
        return json.loads(answer)


class Forked:
    """What a forge has forked, with the methods of subprocess.Popen that tests use."""

    def __init__(self, forge: Forge, pid: int) -> None:
        self.pid, self._forge = pid, forge
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        if self.returncode is None:
            self.returncode = self._forge.wait(self.pid, 0)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            self.returncode = self._forge.wait(self.pid, timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(f"forked process {self.pid}", timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it, whatever it does."""
        self.send_signal(signal.SIGKILL)
        self.wait(30)


def serve(questions: TextIO, answers: TextIO) -> None:
    """Answer questions until there are no more; in a forked process, run `ampo-run` and leave as it leaves."""
    codes: dict[int, int | None] = {}
    for line in questions:
        question = json.loads(line)
        if "wait" in question:
            answer = _exit_code(codes, question["wait"], question["seconds"])
        else:
            answer = os.fork()
            if answer == 0:
                questions.close()
                answers.close()
                _leave(_become(question))
            codes[answer] = None
        print(json.dumps(answer), file=answers, flush=True)
    for pid in (pid for pid, code in codes.items() if code is None):
        os.kill(pid, signal.SIGKILL)


def _exit_code(codes: dict[int, int | None], pid: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    while codes[pid] is None:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            codes[pid] = os.waitstatus_to_exitcode(status)
        elif time.monotonic() >= deadline:
            break
        else:
            time.sleep(POLL_S)
    return codes[pid]


def _become(order: Mapping[str, Any]) -> int:
    """Turn this process, which was just forked, into the one that `order` asks for; the exit code."""
    os.setsid()
    os.chdir(order["folder"])
    out = os.open(order["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    err = out if order["err"] is None else os.open(order["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.stdout.reconfigure(write_through=bool(os.environ.get("PYTHONUNBUFFERED")))  # type: ignore[union-attr]
    sys.path[0] = order["folder"]
    sys.argv = ["ampo-run", *order["arguments"]]
    try:
        runpy.run_module("ampo_core.cli.main", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _leave(code: int) -> None:
    """End as an interpreter does, but for taking the imports apart, which costs more than a short run does."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    asked, answered = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what imports print is no answer
    importlib.import_module("ampo_core.jobs.libraries").settle_libraries()
    for name in (*sys.argv[1:], *importlib.import_module("ampo_core.jobs.table").MODULES.values()):
        importlib.import_module(name)
    importlib.import_module("ampo_registry.discovery").discover()
    gc.freeze()  # a collection in a forked process would copy the memory of all that is imported
    serve(asked, answered)
