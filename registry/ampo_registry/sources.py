"""Finds plugins without importing them, and says what to do about one that cannot be imported.

The only module that goes through `entrypoints`: that package lists what is installed without importing it.
"""

from __future__ import annotations

import configparser
import importlib.util
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import entrypoints  # pyright: ignore[reportMissingTypeStubs]

from ampo_registry.catalog import BrokenPlugin
from ampo_registry.errors import PluginError
from ampo_registry.faults import describe, place_of
from ampo_registry.requirements import OWN, contract_fault, missing, own_version
from ampo_registry.text import nearest

GROUP = "ampo"
FILE = "file"
"""The version of a plugin that `--plugin` names."""


@dataclass(frozen=True, slots=True)
class PluginSource:
    """A plugin that was found but not imported: its name, who ships it, how to import it, and from which module."""

    name: str
    distribution: str
    version: str
    load: Callable[[], object]
    imported: str = ""

    @property
    def key(self) -> str:
        """Its name among all plugins."""
        return f"{self.distribution}:{self.name}"

    def broken(self, reason: str, error: BaseException | None = None) -> BrokenPlugin:
        """The record of this plugin when it cannot be used."""
        return BrokenPlugin(self.name, self.distribution, self.version, reason, place_of(error) if error else "")


def installed(folders: Iterable[str], report: Callable[[BrokenPlugin], None]) -> Iterator[PluginSource]:
    """The plugins of all distributions that lie in `folders`, which are those of sys.path; `report` gets what cannot be
    read."""
    seen: set[str] = set()
    for folder in dict.fromkeys(folders):
        try:
            found = list(entrypoints.iter_files_distros([folder]))
        except (configparser.Error, UnicodeDecodeError) as error:
            report(BrokenPlugin("entry points", folder, "unknown", f"unreadable entry_points.txt: {describe(error)}"))
            continue
        for parser, distribution in found:
            if distribution is None:
                continue  # says the stub; this function always gives one
            name = distribution.name.replace("_", "-").lower()
            if name in seen:
                continue  # the first on sys.path is the one that Python imports
            seen.add(name)
            version = distribution.version or "unknown"
            for key, text in parser[GROUP].items() if GROUP in parser else ():
                yield PluginSource(key, name, version, _entry_point(key, text, name), text.partition(":")[0].strip())


def _entry_point(name: str, text: str, distribution: str) -> Callable[[], object]:
    def load() -> object:
        if (fault := contract_fault(distribution)) is not None:
            raise PluginError(fault)
        try:
            return entrypoints.EntryPoint.from_string(text, name).load()
        except entrypoints.BadEntryPoint:
            raise PluginError(f"entry point {name} = {text!r} is not of the form module or module:object") from None

    return load


def file_source(path: Path) -> PluginSource:
    """The plugin in a file. Raises PluginError where there is none."""
    resolved = path.resolve()
    if not resolved.is_file() or resolved.suffix != ".py":
        raise PluginError(f"--plugin {path}: no such Python file")
    module = resolved.parent if resolved.name == "__init__.py" else resolved  # a package by its folder's name
    return PluginSource(module.stem, str(path), FILE, lambda: _import_file(resolved, module), module.stem)


def _import_file(path: Path, module: Path) -> ModuleType:
    name = module.stem
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    found = None if known is not None else importlib.util.find_spec(name)
    if known is not None or (found is not None and Path(found.origin or "").resolve() != path):
        raise PluginError(
            f"a module named {name!r} exists already; rename the {'file' if module == path else 'folder'}"
        )
    # Under its own name and on sys.path, so that a reward defined there can be unpickled in a worker process.
    added = [] if found is not None else [str(module.parent)]
    sys.path.extend(added)
    try:
        return importlib.import_module(name)
    except BaseException:
        sys.path[:] = [folder for folder in sys.path if folder not in added]
        raise


def why_not_imported(source: PluginSource, error: BaseException) -> str:
    """What importing a plugin raised, and what a person can do about it."""
    if isinstance(error, PluginError):
        return str(error)
    return f"cannot be imported: {describe(error)}{_to_do(source, error)}"


def _to_do(source: PluginSource, error: BaseException) -> str:
    module = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and module:
        if source.version == FILE:
            return f"; install what brings {module}"
        if module == source.imported.partition(".")[0]:
            return f"; the module of {source.distribution} is gone: install it again, or uninstall it"
        asked = missing(source.distribution)
        what = " ".join(f"'{requirement}'" for requirement in asked) or f"what brings {module}"
        return f"; install {what}"
    if isinstance(error, ImportError) and module == "ampo_registry":
        name = re.match(r"cannot import name '(\w+)'", str(error))
        near = nearest(name[1], dir(sys.modules["ampo_registry"])) if name else ""
        hint = f"; did you mean {near!r}?" if near else ";"
        return f"{hint} {OWN} {own_version()} does not have it; its CHANGELOG.md says what changed in the contract"
    return ""
