from pathlib import Path

from ampo_core.testing import run_steps
from ampo_registry import RunContext
from ampo_registry.testing import example_report

import ampo_my_observer


def test_it_counts_different_responses() -> None:
    report = example_report(texts=(("a", "a"), ("a", "b")))
    context = RunContext("run", Path(), "train", 0, {})
    measured = ampo_my_observer.ampo_step_finished(report, context)
    assert measured == {"my_observer/distinct": 0.75}


def test_its_metric_is_one_of_a_run() -> None:
    done = run_steps(plugins=[ampo_my_observer])
    assert not done.faults
    assert all(0.0 < line["my_observer/distinct"] <= 1.0 for line in done.metrics)
