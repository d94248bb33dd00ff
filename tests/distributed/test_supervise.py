"""The watch over ranks, with plain processes in their place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from ampo_registry import RunError

from ampo_core.distributed import supervise as module
from ampo_core.distributed.outcome import Outcome, announce, leave
from ampo_core.distributed.supervise import supervise

pytestmark = pytest.mark.process

IGNORES = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
STOPS = """\
import signal, sys, time
signal.signal(signal.SIGINT, lambda number, frame: sys.exit(3))
print(1, flush=True)
time.sleep(60)
"""


class Processes:
    """A starter of scripts: rank N runs the Nth. `act` is called once, when all of them have been looked at."""

    local = True

    def __init__(self, folder: Path, *scripts: str) -> None:
        self._folder, self._scripts = folder, scripts
        self._waited = 0
        self.running: list[subprocess.Popen[str]] = []
        self.act: Callable[[], object] = lambda: None

    def start(self) -> None:
        for rank, script in enumerate(self._scripts):
            process = subprocess.Popen(
                [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
            )
            assert process.stdout is not None
            assert process.stdout.readline() == "1\n"
            announce(self._folder, rank, process.pid)
            self.running.append(process)

    def wait(self, seconds: float) -> bool:
        self._waited += 1
        if self._waited == 2:
            self.act()
        time.sleep(seconds)
        return all(process.poll() is not None for process in self.running)

    def exit_codes(self) -> Mapping[int, int | None]:
        return {rank: process.returncode for rank, process in enumerate(self.running) if process.returncode}

    def signal(self, rank: int, pid: int, number: signal.Signals) -> None:
        self.running[rank].send_signal(number)

    def last_words(self, rank: int) -> str:
        return f"words of {rank}" if rank else ""


def test_a_dead_rank_is_named_although_the_others_had_to_be_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GRACE_S", 0.5)
    ranks = Processes(tmp_path, IGNORES, IGNORES)
    ranks.act = lambda: ranks.running[1].kill()
    with pytest.raises(RunError, match=r"^rank 1 was ended by SIGKILL[^;]*; the other ranks were stopped"):
        supervise(ranks, tmp_path)
    assert [process.returncode for process in ranks.running] == [-9, -9]


def test_the_last_words_of_a_rank_that_nobody_heard_are_told(tmp_path):
    ranks = Processes(tmp_path, "print(1)", "print(1, flush=True); raise SystemExit(5)")
    with pytest.raises(RunError, match=r"rank 1 ended with exit code 5; .* the end of what it said:\nwords of 1"):
        supervise(ranks, tmp_path)


def test_a_signal_is_passed_on_and_a_second_ends_ranks_that_do_not_listen(tmp_path):
    ranks = Processes(tmp_path, STOPS, IGNORES.replace("SIGTERM", "SIGINT"))

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        ranks.running[0].wait(60)
        os.kill(os.getpid(), signal.SIGTERM)

    ranks.act = lambda: threading.Thread(target=twice, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        supervise(ranks, tmp_path)
    assert [process.returncode for process in ranks.running] == [3, -9]


def test_ranks_that_stop_in_good_order_are_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GRACE_S", 0.1)
    slow = f"print(1, flush=True); import time; time.sleep(1.5); open({str(tmp_path / 'late')!r}, 'w')"
    ranks = Processes(tmp_path, slow, "print(1, flush=True)")
    leave(tmp_path, 1, Outcome("done", 0))
    supervise(ranks, tmp_path)
    assert (tmp_path / "late").exists()
