"""The world that misbehaving plugins run in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.misbehaving.world import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[World]:
    found = World(tmp_path_factory.mktemp("misbehaving"), tiny_model)
    yield found
    found.close()
