"""Runs on a machine that others keep busy, against runs on one that is not: the same bits."""

from __future__ import annotations

import pytest

from tests.run.conftest import Runs

pytestmark = [pytest.mark.process, pytest.mark.slow]

VARIANTS = {
    "plain": (),
    "ahead": ("rollout.ahead=1", "reward.workers=2"),
    "threads": ("resources.threads=2", "deepspeed.zero_stage=2", "rollout.ahead=1"),
}


@pytest.fixture(scope="module")
def calm(runs: Runs) -> None:
    """The runs of all variants, before anything else is at work."""
    for name, options in VARIANTS.items():
        ended = runs("train.yaml", f"calm-{name}", *options)
        assert ended.code == 0, ended.err


@pytest.mark.parametrize("name", VARIANTS)
def test_a_busy_machine_changes_no_bit(runs: Runs, calm: None, busy: None, name: str) -> None:
    ended = runs("train.yaml", f"busy-{name}", *VARIANTS[name])
    assert ended.code == 0, ended.err
    runs.assert_equal(f"calm-{name}", f"busy-{name}")
    assert all(line.get("verifier/timeouts", 0.0) == 0.0 for line in runs.metrics(f"busy-{name}"))
