"""Fixtures of the jobs that prepare, fine-tune and chain."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from ampo_registry.discovery import Plugins, discover
from rich.console import Console

from ampo_core.config.jobs import Job
from ampo_core.config.load import load_config
from ampo_core.run.environment import Environment


@pytest.fixture(scope="session")
def plugins() -> Plugins:
    """The installed plugins."""
    return discover()


@pytest.fixture(scope="session")
def environment_of(plugins: Plugins) -> Callable[..., tuple[Job, Environment]]:
    """Loads a config as the command line would: (job, environment), with a console that writes into a text."""

    def load(path: Path, overrides: Mapping[str, Any] | None = None) -> tuple[Job, Environment]:
        loaded = load_config(path, overrides or {}, plugins)
        loaded.require_ready()
        return loaded.job, Environment.of(loaded, plugins, console=Console(file=io.StringIO(), width=200))

    return load
