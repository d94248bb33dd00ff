"""Whole runs of two ranks: how they stop, fail and die. Each start of two ranks costs many seconds."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.process

PLUGIN = """\
from typing import Literal

from ampo_registry import AdvantageSpec, RunError, hookimpl


class GivesUp(AdvantageSpec):
    type: Literal["gives_up"] = "gives_up"

    def advantages(self, rewards, correct, off_policy):
        raise RunError("the advantage gives up")


@hookimpl
def ampo_specs():
    return [GivesUp]
"""


def test_a_signal_stops_all_ranks_after_a_checkpoint(configs: Any, start: Any, tmp_path: Path) -> None:
    run = start(configs("train"), f"run.dir={tmp_path}", "run.name=long")
    run.wait_for("train 1/100000")
    assert len(run.ranks()) == 2
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == 3, run.said
    assert run.survivors() == []
    assert run.said.count("a second signal ends at once") == 1
    (checkpoint,) = (tmp_path / "long/checkpoints").glob("step-*")
    assert f"ampo-run: interrupted\nstopped after step {int(checkpoint.name[5:])}, whose checkpoint is" in run.said
    lines = [json.loads(line)["step"] for line in (tmp_path / "long/metrics.jsonl").read_text().splitlines()]
    assert lines == list(range(1, int(checkpoint.name[5:]) + 1))
    assert run.said.count("12 questions") == 1


def test_an_error_of_all_ranks_is_said_once(configs: Any, start: Any, tmp_path: Path) -> None:
    plugin = tmp_path / "gives_up_plugin.py"
    plugin.write_text(PLUGIN)
    run = start(
        configs("train"), f"run.dir={tmp_path}", "run.name=failed", "objective.advantage=gives_up", "--plugin", plugin
    )
    assert run.end() == 1
    where = r"\.advantages, [^\n]*/gives_up_plugin\.py:10\): question \w{12}: "
    end = rf"ampo-run: the run failed\n[^\n]*{where}the advantage gives up\n\Z"
    assert re.search(end, run.said), run.said
    assert run.said.count("gives up") == 1
    assert "Traceback" not in run.said
