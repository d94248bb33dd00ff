"""The templates as modules of this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Protocol

import pytest

from ampo_core.scaffold import templates

FOLDER = Path(templates.__file__).parent


class Load(Protocol):
    def __call__(self, name: str) -> ModuleType: ...


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Imports `ampo_my_KIND` or `test_my_KIND` as in a distribution of its own."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(FOLDER))
    yield import_module
    for name in set(sys.modules) - before:
        if name.startswith(("ampo_my_", "test_my_")):
            del sys.modules[name]
