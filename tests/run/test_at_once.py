"""Processes that start at once on one folder: one runs, the others say who does."""

from __future__ import annotations

import multiprocessing
import re
import signal
import socket
import time
from pathlib import Path

import pytest
from ampo_registry import ConfigError

from ampo_core.config.tree import RunConfig
from ampo_core.run.folder import RunFolder, check_free
from ampo_core.run.lock import held
from tests.run.conftest import PLUGIN, Runs

pytestmark = pytest.mark.process

PROCESSES, ROUNDS = 4, 3


def begin(folder: Path, barrier: object, answered: object, said: object) -> None:
    """What a job does with its folder, once a round; the one that has it stays until the others are `answered`."""
    for number in range(ROUNDS):
        run = RunConfig(name=str(number), dir=str(folder))
        barrier.wait()
        try:
            check_free(run.folder)
            with held(run.folder):
                RunFolder.create(run, "job: train\n", {})
                said.put((number, "made"))
                assert all(answered.acquire(timeout=60) for _ in range(PROCESSES - 1))
        except ConfigError as error:
            said.put((number, str(error)))
            answered.release()


def test_of_several_at_once_one_makes_the_folder_and_the_others_name_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    shared = context.Barrier(PROCESSES), context.Semaphore(0), context.Queue()
    processes = [context.Process(target=begin, args=(tmp_path, *shared), daemon=True) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    found = sorted(shared[-1].get(timeout=60) for _ in range(PROCESSES * ROUNDS))
    for process in processes:
        process.join()
    for number in range(ROUNDS):
        texts = [text for place, text in found if place == number]
        assert texts.count("made") == 1, texts
        refused = [text for text in texts if text != "made"]
        pids = {re.search(r"is in use by process (\d+) on \S+: wait until it has ended", text)[1] for text in refused}
        assert len(pids) == 1, texts
        assert int(pids.pop()) in {process.pid for process in processes}


def test_a_folder_that_is_left_empty_goes(tmp_path: Path) -> None:
    with held(tmp_path / "run"):
        assert (tmp_path / "run/.lock").exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("config", ["train.yaml", "sft.yaml"])
def test_a_second_command_says_that_a_run_is_going_on(runs: Runs, tmp_path: Path, config: str) -> None:
    command = [str(runs.configs / config), f"run.dir={tmp_path}", "run.name=both", "--plugin", str(PLUGIN)]
    logs = [tmp_path / "0.log", tmp_path / "1.log"]
    first = runs.forge.start(*command, out=logs[0])
    lock = tmp_path / "both/.lock"
    while not (lock.exists() and lock.read_text() == f"process {first.pid} on {socket.gethostname()}\n"):
        assert first.poll() is None, logs[0].read_text()
        time.sleep(0.01)
    # stopped, or it may be through before the second has looked
    first.send_signal(signal.SIGSTOP)
    second = runs.forge.start(*command, out=logs[1]).wait(300)
    first.send_signal(signal.SIGCONT)
    said = logs[1].read_text()
    assert (second, first.wait(300)) == (2, 0), [log.read_text() for log in logs]
    assert f"{tmp_path / 'both'} is in use by process {first.pid} on " in said
    assert "remove the folder" not in said
