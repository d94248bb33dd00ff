"""A pool from the command line, with two ranks: killed, gone on with, and the same as the one rank's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.forge import Forge

PLUGIN = Path(__file__).with_name("pool_plugin.py")


def test_two_ranks_killed_and_gone_on_with_write_what_one_rank_writes(
    built: Any, build: Callable[..., Any], forge: Forge
) -> None:
    pair = build(resources={"devices": 2, "threads": 1})
    command = (pair.write(), "--plugin", PLUGIN)
    killed = forge.run(*command, environment={"AMPO_TEST_POOL_END": "8"})
    assert killed.returncode == 1, killed.stderr
    assert "rank 0 was ended by SIGKILL" in killed.stderr
    assert not (pair.run / "out").exists()
    assert len(list(pair.run.glob("shards/*/*.parquet"))) == 7
    done = forge.run(*command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 of 3 shards are there already") == 1
    assert pair.files() == built.files()
