import csv
from pathlib import Path

from ampo_core.testing import run_steps
from ampo_registry.testing import check_tracker

from ampo_my_tracker import MyTracker


def test_it_keeps_the_contract_of_a_tracker(tmp_path: Path) -> None:
    check_tracker(MyTracker(), tmp_path)


def test_it_has_the_metrics_of_a_run() -> None:
    done = run_steps({"tracking": ["my_tracker"]}, plugins=[MyTracker])
    with (done.folder / "my_tracker.csv").open(encoding="utf-8", newline="") as file:
        rewards = [float(value) for _, name, value in csv.reader(file) if name == "reward/mean"]
    assert rewards == [line["reward/mean"] for line in done.metrics]
