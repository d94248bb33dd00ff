"""Two ways to start ranks: torch elastic for this machine, DeepSpeed's launcher for those of a host file."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError, RunError

from ampo_core.config.machines import visible_gpus
from ampo_core.distributed.outcome import outcomes, processes

_LAST_LINES = 20
_SSH_S = 20
_SSH = ("ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_SSH_S}")
_SSH_AT_ONCE = 16


class ElasticRanks:
    """The ranks of this node, as torch elastic starts them: each leads a session of its own.

    Only the first one's output reaches the screen. With several nodes they meet at `master`, HOST:PORT, where node 0
    listens.
    """

    local = True

    def __init__(self, folder: Path, devices: int, nodes: int = 1, node_rank: int = 0, master: str = "") -> None:
        self._folder, self._devices, self._first = folder, devices, node_rank * devices
        self._nodes, self._node_rank, self._master = nodes, node_rank, master
        # In a thread, because torch's agent takes over the signals of the main one and gives ranks 30 s to end.
        self._thread = threading.Thread(target=self._run, name="torch elastic", daemon=True)
        self._codes: dict[int, int] = {}
        self._error: Exception | None = None

    def start(self) -> None:
        """Start them; returns at once."""
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait at most so long for all of them to end; True if they have."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def exit_codes(self) -> Mapping[int, int | None]:
        """rank -> exit code of those that did not end well. Raises RunError if they could not be started."""
        if self._error is not None:
            raise RunError(f"the ranks could not be started: {self._error}") from self._error
        return self._codes

    def signal(self, rank: int, pid: int, number: signal.Signals) -> None:
        """Send a signal to a rank."""
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return  # it has just ended

    def last_words(self, rank: int) -> str:
        """The end of the stderr of `rank`; empty for the first rank of this node, whose stderr is the screen."""
        found = sorted(self._folder.glob(f"logs/*/attempt_0/{rank - self._first}/stderr.log"))
        return "\n".join(found[-1].read_text("utf-8", "replace").splitlines()[-_LAST_LINES:]) if found else ""

    def _run(self) -> None:
        try:
            from torch.distributed.launcher.api import elastic_launch

            _quieten()
            elastic_launch(self._config(), sys.executable)("-m", "ampo_core.cli.rank", str(self._folder))
        except Exception as error:
            failures = getattr(error, "failures", None)  # of torch's ChildFailedError, which is imported only now
            if failures is None:
                self._error = error
            else:
                self._codes = {rank: failure.exitcode for rank, failure in failures.items()}

    def _config(self) -> Any:
        from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
        from torch.distributed.launcher.api import LaunchConfig

        several = self._nodes > 1
        return LaunchConfig(
            min_nodes=self._nodes,
            max_nodes=self._nodes,
            nproc_per_node=self._devices,
            run_id=self._folder.name if not several else "ampo",
            rdzv_backend="static" if several else "c10d",
            rdzv_endpoint=self._master or "localhost:0",
            rdzv_configs={"rank": self._node_rank} if several else {},
            local_addr=None if several else "127.0.0.1",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(
                log_dir=str(self._folder / "logs"),
                redirects={rank: Std.NONE if rank == 0 else Std.ALL for rank in range(self._devices)},
            ),
        )


class DeepSpeedRanks:
    """The ranks of all `hosts`, which DeepSpeed's launcher starts over pdsh and ssh; they all see `folder`."""

    local = False

    def __init__(self, folder: Path, hostfile: str, hosts: Sequence[str], devices: int) -> None:
        self._folder, self._hostfile, self._hosts, self._devices = folder, hostfile, hosts, devices
        self._process: subprocess.Popen[bytes] | None = None

    def command(self, environ: Mapping[str, str]) -> list[str]:
        """The command line of DeepSpeed's launcher."""
        options = ["--quiet", "--no_ssh_check", "--hostfile", self._hostfile, "--num_nodes", str(len(self._hosts))]
        options += ["--num_gpus", str(self._devices), "--no_local_rank"]
        for option, name in (("--master_addr", "MASTER_ADDR"), ("--master_port", "MASTER_PORT")):
            if environ.get(name):
                options += [option, environ[name]]
        return [
            sys.executable,
            "-m",
            "deepspeed.launcher.runner",
            *options,
            "--module",
            "ampo_core.cli.rank",
            str(self._folder),
        ]

    def check(self) -> None:
        """Raise ConfigError if a host cannot be reached over ssh without a password."""

        def complaint(host: str) -> str | None:
            found = subprocess.run([*_SSH, host, "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
            return f"{host}: {found.stderr.strip() or 'no answer'}" if found.returncode else None

        with ThreadPoolExecutor(_SSH_AT_ONCE) as pool:
            unreachable = [text for text in pool.map(complaint, self._hosts) if text is not None]
        if unreachable:
            listed = "\n".join(f"  {text}" for text in unreachable)
            raise ConfigError(f"resources.hostfile: these hosts cannot be reached with `ssh HOST`:\n{listed}")

    def start(self) -> None:
        """Start them; returns at once."""
        environ = dict(os.environ)
        if not visible_gpus(environ):
            environ.setdefault("DS_ACCELERATOR", "cpu")  # else it warns that it has found nothing else
        # Out of reach of a terminal's Ctrl-C, which it would answer by killing all ranks.
        self._process = subprocess.Popen(self.command(os.environ), env=environ, start_new_session=True)

    def wait(self, seconds: float) -> bool:
        """Wait at most so long for all of them to end; True if they have."""
        assert self._process is not None
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def exit_codes(self) -> Mapping[int, int | None]:
        """rank -> None of those that left no word. Raises RunError if the launcher failed before ranks had started."""
        assert self._process is not None
        code, started = self._process.returncode, processes(self._folder)
        if code and not started:
            raise RunError(f"DeepSpeed's launcher ended with exit code {code}; what it said stands above")
        return dict.fromkeys(started.keys() - outcomes(self._folder).keys()) if code else {}

    def signal(self, rank: int, pid: int, number: signal.Signals) -> None:
        """Send a signal to a rank over ssh; says so if its host cannot be reached."""
        host = self._hosts[rank // self._devices]
        command = [*_SSH, host, "kill", f"-{int(number)}", str(pid)]
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, check=False, timeout=2 * _SSH_S)
        except subprocess.TimeoutExpired:
            print(f"ampo-run: rank {rank} on {host} could not be sent {number.name}: ssh hangs", file=sys.stderr)

    def last_words(self, rank: int) -> str:
        """Nothing: all ranks write to the screen."""
        return ""


def _quieten() -> None:
    """Keep torch's agent from reporting on ranks: how they ended is said once, by `supervise`."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(("torch.distributed.elastic", "torch.distributed.launcher")):
            logging.getLogger(name).setLevel(logging.CRITICAL)
