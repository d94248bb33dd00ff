"""The code that lies where a person edits it: its hashes stand in a run's manifest, so that an edit within a run is
noticed. Packages that were installed as they are stand there by their version."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ampo_registry.discovery import Plugins
from ampo_registry.requirements import OWN
from ampo_registry.sources import FILE, PluginSource

from ampo_core.data.rows import file_hash

OWN_PACKAGES = ("ampo_core", "ampo_registry", "ampo_plugins")
INSTALLED = ("site-packages", "dist-packages")


def code_of(plugins: Plugins, config: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest says of code.

    `plugin_files`: "sha256 …" of each Python file of each plugin that the run may use, by plugin, if it was installed
    with `pip install -e` or is a package that `--plugin` names. A plugin may be used if it observes runs, or if the
    resolved `config` names a component or a function of it. `own_code`: one hash for each package of AMPO, if that is
    a checkout.
    """
    found: dict[str, dict[str, str]] = {}
    for source in plugins.loaded:
        files = _edited(plugins, source) if _may_be_used(plugins, source, config) else {}
        name = source.name if source.version == FILE else source.distribution
        hashes = {path: f"sha256 {file_hash(file)}" for path, file in files.items()}
        if hashes:
            found[name] = {**found.get(name, {}), **hashes}
    return {"plugin_files": dict(sorted(found.items())), "own_code": dict(_own_code())}


def python_files(module: ModuleType) -> dict[str, Path]:
    """The files, by a path that begins with their package, of the outermost package that `module` lies in; a namespace
    is none. The module's own file where it lies in no package; nothing where it has no file."""
    parts = module.__name__.split(".")
    outer = (sys.modules.get(".".join(parts[: i + 1])) for i in range(len(parts)))
    path = next((Path(file) for found in outer if (file := getattr(found, "__file__", None))), None)
    if path is None or not path.is_file():
        return {}
    if path.name != "__init__.py":
        return {path.name: path}
    root = path.parent
    return {file.relative_to(root.parent).as_posix(): file for file in sorted(root.rglob("*.py"))}


def _may_be_used(plugins: Plugins, source: PluginSource, config: Mapping[str, Any]) -> bool:
    if source.distribution == OWN:
        return False
    if source in plugins.observers and config.get("observers", {}).get(source.name, True):
        return True
    if any(file.file == source.distribution and any(map(file.has, _texts(config))) for file in plugins.catalog.files):
        return True
    entries = plugins.catalog.entries()
    own = {entry.name for entry in entries if (entry.plugin, entry.distribution) == (source.name, source.distribution)}
    return not own.isdisjoint(_types(config))


def _types(value: Any) -> Iterator[str]:
    """Each `type` in a resolved config, wherever it stands: those of components are among them."""
    if isinstance(value, Mapping):
        if isinstance(name := value.get("type"), str):
            yield name
        for inner in value.values():
            yield from _types(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _types(inner)


def _texts(value: Any) -> Iterator[str]:
    """Each text in a resolved config: the names of functions are among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)


def _edited(plugins: Plugins, source: PluginSource) -> dict[str, Path]:
    """The files of a plugin that is not among installed packages. A lone `--plugin FILE.py` stands in the manifest by
    its name and hash already."""
    module = plugins.module(source)
    files = {} if module is None else python_files(module)
    lone = source.version == FILE and len(files) == 1
    return {} if lone or any(_is_installed(file) for file in files.values()) else files


def _is_installed(file: Path) -> bool:
    return not set(file.parts).isdisjoint(INSTALLED)


def _own_code() -> Iterator[tuple[str, str]]:
    for name in OWN_PACKAGES:
        module = sys.modules.get(name)
        files = {} if module is None else python_files(module)
        if files and not any(_is_installed(file) for file in files.values()):
            digest = hashlib.sha256("".join(f"{path} {file_hash(files[path])}\n" for path in sorted(files)).encode())
            yield name, f"sha256 {digest.hexdigest()}"
