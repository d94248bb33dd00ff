"""The `suite` job for real: processes, failures, interruption, and what a second call does."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.forge import Forge


@pytest.fixture
def run(folder: Path, forge: Forge) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line with suite.yaml; what it starts starts for real."""
    return partial(forge.run, "suite.yaml")


def has_started_one(suite: int) -> bool:
    """True if a member of the suite runs; what else the process may have started does not count."""
    with contextlib.suppress(psutil.Error):  # a child that has just ended
        return any("ampo_core.cli.member" in child.cmdline() for child in psutil.Process(suite).children())
    return False


def stamps() -> dict[str, int]:
    """When each `done` marker was written."""
    return {str(path): path.stat().st_mtime_ns for path in Path("runs/s").glob("seed-*/**/done")}


def test_a_suite_fails_in_part_is_interrupted_goes_on_and_is_left_alone(run: Any, forge: Forge) -> None:
    """One story in one folder, because every process that trains takes seconds to start."""
    arguments = ("seeds=[0]", "only=[first]", "tables.first.rows=[two]")

    # a run that fails keeps only those from running that need it; the table says what is missing
    failed = run(*arguments, "runs.one={config: sft.yaml, overrides: {data.format: pool}}")
    assert failed.returncode == 1, failed.stderr
    assert "seed 0, one: failed with exit code 2" in failed.stdout
    assert "the end of runs/s/logs/seed-0/one.log:" in failed.stdout
    assert "seed 0, two: not started, it needs what failed" in failed.stderr
    assert "one more: 0 of 1 seeds are there." in failed.stdout
    before = stamps()
    assert set(before) == {"runs/s/seed-0/world/done"}

    # told to end, it ends what it has started and exits with 3
    process = forge.start("suite.yaml", *arguments, out=Path("out.txt"), err=Path("err.txt"))
    waited = time.monotonic()
    while not has_started_one(process.pid) and time.monotonic() - waited < 120:
        time.sleep(0.01)  # at once, for a run of seconds is over soon after its log has grown
    assert process.poll() is None, Path("err.txt").read_text()
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 3
    assert "run the same command again, and what is finished is kept" in Path("err.txt").read_text()

    # the same command goes on and finishes; what was finished is not run again
    done = run(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of them finished already" in done.stdout
    # what a member says of itself stands in its log, and is quoted
    assert "seed 0, evaluations/sampled/two: warning: two on level2: " in done.stdout
    after = stamps()
    assert after.items() > before.items()
    (row,) = [
        row for row in json.loads(Path("runs/s/results.json").read_text())["first"]["rows"] if row["run"] == "two"
    ]
    assert row["seeds"] == [0]
    assert row["budget"]["tokens_trained"] > 0
    assert "| one more |" in Path("runs/s/tables/first.md").read_text()
    assert Path("runs/s/report.html").read_text().lower().startswith("<!doctype html>")

    # once more: nothing runs; another config of what is finished is refused, and so is another job in the folder
    assert run(*arguments).returncode == 0
    assert stamps() == after
    refused = run(*arguments, "runs.one={config: sft.yaml, overrides: {training.learning_rate: 1.0e-4}}")
    assert refused.returncode == 2
    assert "run one is finished in runs/s/seed-0/one, and its config has changed since:" in refused.stderr
    assert "training.learning_rate: 5e-05 -> 0.0001" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_folder_of_something_else_is_refused(run: Any) -> None:
    Path("runs/s").mkdir(parents=True)
    Path("runs/s/mine.txt").touch()
    refused = run("seeds=[0]")
    assert refused.returncode == 2
    assert "runs/s holds other files" in refused.stderr


@pytest.mark.parametrize("file", ["small_world.yaml", "distillation.yaml"])
def test_shipped_suites_pass_the_check(file: str, forge: Forge) -> None:
    config = Path(__file__).parents[3] / "configs" / "suites" / file
    checked = forge.run(config, "--check")
    assert checked.returncode == 0, checked.stderr
