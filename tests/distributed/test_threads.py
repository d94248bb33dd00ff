"""How many CPU threads a rank asks for."""

from __future__ import annotations

import os

import pytest
import torch

from ampo_core.distributed.ranks import join_ranks


@pytest.mark.parametrize(
    ("threads", "environment", "asked"),
    [
        (None, {}, []),
        (2, {}, [2]),
        (None, {"LOCAL_WORLD_SIZE": "4"}, [2]),
        (None, {"LOCAL_SIZE": "4"}, [2]),
        (None, {"LOCAL_SIZE": "16"}, [1]),
        (3, {"LOCAL_SIZE": "4"}, [3]),
    ],
)
def test_ranks_on_a_machine_share_its_cores(
    threads: int | None, environment: dict[str, str], asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOCAL_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", found.append)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    join_ranks(threads)
    assert found == asked
