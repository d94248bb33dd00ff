"""A suite that is told to end leaves no process behind, however early that comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

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
