"""Which observers a config turns off, and whether there are such."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ampo_registry.discovery import Plugins

from ampo_core.config.job import Job
from ampo_core.config.nodes import KeyPath, nearest


def unknown_observers(job: Job, plugins: Plugins) -> Iterator[tuple[KeyPath, str]]:
    """(key, text) for each name of `observers` that no installed observer has. A broken plugin may be one."""
    named: Mapping[str, bool] = getattr(job, "observers", {})
    known = sorted({source.name for source in plugins.observers} | {plugin.name for plugin in plugins.broken})
    for name in named:
        if name not in known:
            hint = nearest(name, known) if known else "; none is installed"
            yield ("observers", name), f"no observer is named {name!r}{hint}"
