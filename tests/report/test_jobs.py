"""Real jobs leave a report behind: as they go on, when they end, and when they fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ampo_registry import RunError

from ampo_core.cli import main as cli
from ampo_core.jobs import sft
from ampo_core.report import build, reporting

pytestmark = pytest.mark.process

WORLD = """\
job: prepare
run: {name: world, dir: runs}
task: {type: labelled_arithmetic, questions: 12, heldout_per_level: 2, warmup_examples: 20}
"""
TUNE = """\
job: sft
run: {name: tune, dir: runs}
model: {path: runs/world/out/model, dtype: float32, gradient_checkpointing: false}
data: {train: [runs/world/out/sft.parquet], format: messages}
training: {epochs: 2, batch: 10, accumulation: 1}
deepspeed: {zero_stage: 0}
checkpoint: {every: 1}
resources: {threads: 1}
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a small world."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "world.yaml").write_text(WORLD)
    (tmp_path / "tune.yaml").write_text(TUNE)
    assert cli.main(["world.yaml"]) == 0
    return tmp_path


def test_prepare_and_sft_leave_a_report(desk, capfd):
    assert "questions_without_answer" in (desk / "runs/world/report.html").read_text()
    capfd.readouterr()
    assert cli.main(["tune.yaml"]) == 0
    assert "report: runs/tune/report.html" in capfd.readouterr().out
    assert "sft run, finished" in (desk / "runs/tune/report.html").read_text()


def test_a_run_that_goes_on_or_fails_can_be_looked_at(desk, capfd, monkeypatch):
    monkeypatch.setattr(reporting, "REPORT_EVERY_S", 0.0)
    seen = []
    train_step = sft.train_step

    def step(*arguments: Any) -> dict[str, float]:
        report = desk / "runs/tune/report.html"
        seen.append(report.read_text().count("sft run, not finished, after step 1") if report.exists() else None)
        if len(seen) == 3:
            raise RunError("the disk is full")
        return train_step(*arguments)

    monkeypatch.setattr(sft, "train_step", step)
    assert cli.main(["tune.yaml"]) == 1
    assert seen == [None, 1, 0]
    assert "sft run, not finished, after step 2" in (desk / "runs/tune/report.html").read_text()
    assert "the disk is full" in capfd.readouterr().err


def test_a_report_that_cannot_be_written_stops_no_run(desk, capfd, monkeypatch):
    def fails(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(build, "write_report", fails)
    assert cli.main(["tune.yaml"]) == 0
    assert "the report of runs/tune could not be written: OSError('no space left')" in capfd.readouterr().out
    assert (desk / "runs/tune/done").exists()
