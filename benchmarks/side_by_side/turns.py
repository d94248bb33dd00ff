"""Taking turns: a worker does one step when it is told to, and reports what the step took. Standard library only.

The driver writes one byte for each step into a pipe, the worker writes one line of JSON into another. Whoever waits
sleeps in a read, so that the worker whose turn it is has the machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Reports = dict[str, list[dict[str, Any]]]
"""By worker, what it reported of each step."""

GO, REPORT = "SIDE_BY_SIDE_GO", "SIDE_BY_SIDE_REPORT"


class Turns:
    """The worker's side."""

    def __init__(self) -> None:
        self._go, self._report = int(os.environ[GO]), int(os.environ[REPORT])
        self._started = 0.0

    def wait(self) -> None:
        """Sleep until the driver asks for a step, then start the clock. Ends the process if the driver is gone."""
        if not os.read(self._go, 1):
            os._exit(0)
        self._started = time.perf_counter()

    def report(self, hops: Mapping[str, float], **counts: float) -> None:
        """The step is done: seconds of its hops, whatever was counted; the rest is what the hops leave of the whole."""
        total = time.perf_counter() - self._started
        shown = {**hops, "rest": total - sum(hops.values()), "step": total}
        line = json.dumps({"hops": shown, "peak_mb": peak_megabytes(), **counts})
        os.write(self._report, line.encode() + b"\n")


def peak_megabytes() -> float:
    """The largest resident set of this process so far."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


class Worker:
    """The driver's side: a process that takes turns."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        go_read, self._go = os.pipe()
        self._report, report_write = os.pipe()
        self.name, self.log, self._pending = name, log, b""
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **environment, GO: str(go_read), REPORT: str(report_write)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(go_read, report_write),
            )
        os.close(go_read)
        os.close(report_write)

    def step(self) -> dict[str, Any]:
        """Let it do one step; what it reported. Exits with the end of its log if it died."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._go, b"g")
        while b"\n" not in self._pending:
            readable, _, _ = select.select([self._report], [], [], 1.0)
            found = os.read(self._report, 65536) if readable else b""
            self._pending += found
            if not found and self._process.poll() is not None:
                tail = "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:])
                sys.exit(f"{self.name} ended with exit code {self._process.returncode}:\n{tail}\n(log: {self.log})")
            if readable and not found:  # it closed its end and is about to exit
                time.sleep(0.1)
        line, self._pending = self._pending.split(b"\n", 1)
        report: dict[str, Any] = json.loads(line)
        return report

    def close(self) -> None:
        """Let it end by itself after its last step; elsewhere it ends at its next turn, for nobody is there then."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._go, b"g")
        os.close(self._go)
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._report)


def worker_environment(threads: int) -> dict[str, str]:
    """The same for all: threads, how long they spin while they wait, and no network."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "GOMP_SPINCOUNT": "10000",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": str(Path(__file__).resolve().parent),
    }


def take_turns(workers: Sequence[Worker], warmup: int, steps: int) -> Reports:
    """The reports of `steps` steps of each worker, after `warmup` that do not count."""
    reports: Reports = {worker.name: [] for worker in workers}
    try:
        for number in range(warmup + steps):
            for worker in workers:
                report = worker.step()
                if number >= warmup:
                    reports[worker.name].append(report)
    finally:
        for worker in workers:
            worker.close()
    return reports
