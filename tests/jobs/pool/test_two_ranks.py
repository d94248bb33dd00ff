"""A pool from the command line, with two ranks: killed, gone on with, and the same as the one rank's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLUGIN = Path(__file__).with_name("pool_plugin.py")


def ampo_run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    ranks = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "AMPO_ALONE")
    kept = {name: value for name, value in os.environ.items() if name not in ranks}
    command = [sys.executable, "-m", "ampo_core.cli.main", *map(str, arguments), "--plugin", str(PLUGIN)]
    settings = {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=settings, timeout=300)


def test_two_ranks_killed_and_gone_on_with_write_what_one_rank_writes(built: Any, build: Callable[..., Any]) -> None:
    pair = build(resources={"devices": 2, "threads": 1})
    config = pair.write()
    killed = ampo_run(config, AMPO_TEST_POOL_END="8")
    assert killed.returncode == 1, killed.stderr
    assert "rank 0 was ended by SIGKILL" in killed.stderr
    assert not (pair.run / "out").exists()
    assert len(list(pair.run.glob("shards/*/*.parquet"))) == 7
    done = ampo_run(config)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 of 3 shards are there already") == 1
    assert pair.files() == built.files()
