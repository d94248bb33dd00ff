"""A suite that is told to end leaves no process behind, however early that comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from ampo_core.jobs.processes import Processes


@pytest.mark.process
def test_a_signal_while_a_process_starts_ends_that_process_too(tmp_path: Path, monkeypatch: Any) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def told_to_end(*_: Any, **options: Any) -> subprocess.Popen[bytes]:
        os.kill(os.getpid(), signal.SIGTERM)
        started.append(popen([sys.executable, "-c", "import time; time.sleep(60)"], **options))
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", told_to_end)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), Processes([dict(os.environ)], []) as processes:
            processes.start("one", [], tmp_path / "one.log")
        assert signal.getsignal(signal.SIGTERM) is interrupt
    finally:
        signal.signal(signal.SIGTERM, before)
        assert [process.wait(30) for process in started] == [-signal.SIGTERM]


@pytest.mark.process
def test_a_process_whose_parent_is_killed_while_it_starts_does_nothing(tmp_path: Path) -> None:
    script = (
        "import os\nfrom pathlib import Path\nfrom ampo_core.jobs.processes import Processes\n"
        "processes = Processes([dict(os.environ)], [])\n"
        "processes.start('one', ['--plugins'], Path('one.log'))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stderr=subprocess.PIPE)
    assert parent.stderr is not None
    assert parent.wait(30) == -signal.SIGKILL, parent.stderr.read()

    def runs() -> bool:
        found = (process.info for process in psutil.process_iter(["cmdline", "cwd"]))
        return any(i["cwd"] == str(tmp_path) and "ampo_core.cli.member" in (i["cmdline"] or ()) for i in found)

    deadline = time.monotonic() + 20
    while runs():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (tmp_path / "one.log").read_bytes() == b""
