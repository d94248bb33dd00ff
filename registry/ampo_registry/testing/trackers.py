"""Conformance of trackers."""

from __future__ import annotations

from pathlib import Path

from ampo_registry.protocols import BuildContext, Tracker
from ampo_registry.specs import TrackerSpec
from ampo_registry.testing.common import Rules, check_spec_class


def check_tracker(spec: TrackerSpec, folder: Path, writes_files: bool = True) -> None:
    """A tracker logs and closes; with `writes_files` it leaves something in the run folder `folder` (empty before)."""
    check_spec_class(spec)
    rule = Rules(spec)
    tracker: Tracker = spec.build(BuildContext(run_name="conformance", run_dir=folder, config={"job": "train"}))
    metrics = {"reward/mean": 0.5, "policy/grad_norm": float("nan"), "response/length_mean": 812.0}
    names = list(metrics)
    try:
        for step in (0, 1, 2):
            tracker.log(metrics, step)
        tracker.log({}, 3)
    finally:
        tracker.close()
    rule(list(metrics) == names and metrics["reward/mean"] == 0.5, "metrics must be left as they are", metrics)
    if writes_files:
        rule(any(folder.rglob("*")), "the tracker must write into the run's folder")
