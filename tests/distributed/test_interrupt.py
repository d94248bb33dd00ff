"""Signals to one process: a request, then the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from ampo_core.cli import main as cli
from ampo_core.run.interrupt import Interrupt, terminating

LOOP = """\
import subprocess, sys, time
from ampo_core.run.interrupt import Interrupt
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
with Interrupt() as interrupt:
    print(child.pid, flush=True)
    while not interrupt.requested:
        time.sleep(0.01)
    print("asked", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_request_and_the_handlers_are_put_back(capfd, monkeypatch, number):
    monkeypatch.delenv("AMPO_LAUNCHED", raising=False)
    monkeypatch.setenv("RANK", "0")
    before = signal.getsignal(number)
    with Interrupt() as interrupt:
        assert not interrupt.requested
        os.kill(os.getpid(), number)
        assert interrupt.requested
    assert signal.getsignal(number) is before
    err = capfd.readouterr().err
    assert err.count("a second signal ends at once") == 1
    assert number.name in err


@pytest.mark.parametrize("name", ["AMPO_LAUNCHED", "RANK"])
def test_ranks_that_others_speak_for_are_quiet(capfd, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGTERM)
    assert interrupt.requested
    assert capfd.readouterr().err == ""


@pytest.mark.process
def test_the_second_signal_ends_the_process_and_what_it_started():
    process = subprocess.Popen([sys.executable, "-c", LOOP], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "asked\n"
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 3
    assert time.monotonic() - started < 10
    assert "Traceback" not in err
    assert psutil.wait_procs([child], timeout=10)[1] == []


def test_outside_the_main_thread_it_asks_for_nothing():
    asked: list[bool] = []

    def loop() -> None:
        with Interrupt() as interrupt:
            asked.append(interrupt.requested)

    thread = threading.Thread(target=loop)
    thread.start()
    thread.join()
    assert asked == [False]


def test_sigterm_ends_a_job_as_ctrl_c_does():
    with pytest.raises(KeyboardInterrupt), terminating():
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.process
def test_the_second_signal_ends_a_job_that_cleans_up():
    script = (
        "import time\nfrom ampo_core.run.interrupt import terminating\n"
        "with terminating():\n try:\n  print(1, flush=True)\n"
        "  time.sleep(60)\n finally:\n  print(2, flush=True)\n  time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in ("1\n", "2\n"):
        assert process.stdout.readline() == line
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 3


def test_the_command_line_says_that_it_was_interrupted(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_dispatch", lambda arguments: os.kill(os.getpid(), signal.SIGTERM))
    assert cli.main(["c.yaml"]) == 3
    assert capsys.readouterr().err == "ampo-run: interrupted\n"
