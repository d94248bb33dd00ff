"""Lines that are cut back, files that are replaced, and the lock of a folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from ampo_registry import ConfigError, RunError

from ampo_core.run.files import append_lines, cut_back, write_json
from ampo_core.run.lock import check_not_held, held


def lines(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("step", "left"), [(-1, []), (0, [0]), (2, [0, 1, 2, 2]), (9, [0, 1, 2, 2, 3])])
def test_later_lines_are_cut(tmp_path: Path, step: int, left: list[int]) -> None:
    path = tmp_path / "metrics.jsonl"
    append_lines(path, [{"step": number} for number in (0, 1, 2, 2, 3)])
    cut_back(path, step)
    assert lines(path) == left
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("half", ['{"step": 3, "rew', '{"step": 3}', '{"st', '{"reward": 1.0}\n', "\x00\x00\x00"])
def test_a_half_written_last_line_goes(tmp_path: Path, half: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n' + half)
    cut_back(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


@pytest.mark.parametrize("later", ["", '{"step": 3}\n', "\n"])
def test_a_whole_last_line_without_its_end_stays_a_line(tmp_path: Path, later: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n' + later + '{"step": 2}')
    cut_back(path, 2)
    append_lines(path, [{"step": 3}])
    assert lines(path) == [1, 2, 3]


def test_what_no_crash_leaves_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nhello\n{"step": 2}\n')
    with pytest.raises(ConfigError, match=r"metrics\.jsonl, line 2: not a JSON object with a step"):
        cut_back(path, 2)
    assert path.read_text() == '{"step": 1}\nhello\n{"step": 2}\n'
    assert list(tmp_path.iterdir()) == [path]
    cut_back(tmp_path / "none.jsonl", 2)


def test_a_disk_that_refuses_is_a_run_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot write .*metrics\.jsonl: .*No such file"):
        append_lines(tmp_path / "nowhere" / "metrics.jsonl", [{"step": 1}])
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "state.json", {"value": float("nan")})
    assert not (tmp_path / "state.json").exists()


HOLDER = """
import multiprocessing, sys, time
from pathlib import Path
from ampo_core.run.lock import held
with held(Path(sys.argv[1])):
    pids = []
    for method in ("fork", "forkserver", "spawn"):
        worker = multiprocessing.get_context(method).Process(target=time.sleep, args=(60,))
        worker.start()
        pids.append(worker.pid)
    print(*pids, flush=True)
    time.sleep(60)
"""


@pytest.mark.process
def test_a_folder_belongs_to_one_process_until_it_dies(tmp_path: Path) -> None:
    """Its workers may outlive it, and hold nothing."""
    check_not_held(tmp_path)
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        workers = [psutil.Process(int(pid)) for pid in other.stdout.readline().split()]
        assert len(workers) == 3
        for attempt in (lambda: check_not_held(tmp_path), lambda: held(tmp_path).__enter__()):
            with pytest.raises(ConfigError, match=f"is in use by process {other.pid} on .*choose another run.name"):
                attempt()
        other.kill()
    try:
        assert all(worker.is_running() for worker in workers)
        check_not_held(tmp_path)
        with held(tmp_path):
            assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on")
    finally:
        for worker in workers:
            worker.kill()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
def test_looking_at_a_lock_of_ones_own_does_not_lose_it(tmp_path: Path) -> None:
    with held(tmp_path):
        assert "process" in (tmp_path / ".lock").read_text()
        look = "import sys, pathlib; from ampo_core.run.lock import check_not_held as c; c(pathlib.Path(sys.argv[1]))"
        done = subprocess.run([sys.executable, "-c", look, str(tmp_path)], capture_output=True, text=True)
        assert f"is in use by process {os.getpid()} on" in done.stderr


@pytest.mark.parametrize("refusal", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_nothing_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(refusal, os.strerror(refusal))

    for name in ("flock", "lockf"):
        monkeypatch.setattr(fcntl, name, refuse)
    with held(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on")
        check_not_held(tmp_path)
    assert list(tmp_path.iterdir()) == []
