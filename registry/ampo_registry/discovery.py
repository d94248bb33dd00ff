"""Finds plugins (entry-point group `ampo`, and files named on the command line), each loaded in its own guard.

The only module that goes through `entrypoints`: that package lists what is installed without importing it.
"""

from __future__ import annotations

import configparser
import importlib.util
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import entrypoints  # pyright: ignore[reportMissingTypeStubs]
import pluggy

from ampo_registry import hooks
from ampo_registry.catalog import BrokenPlugin, Catalog
from ampo_registry.errors import PluginError
from ampo_registry.faults import describe, is_interruption, place_of
from ampo_registry.functions import FunctionFile
from ampo_registry.markers import PROJECT
from ampo_registry.specs import ComponentSpec
from ampo_registry.text import nearest

GROUP = "ampo"
HEAVY = ("torch", "transformers", "vllm", "deepspeed", "tensorflow", "jax")
"""What takes seconds to import, and no plugin needs before its component is built."""
FILE = "file"
"""The version of a plugin that `--plugin` names."""
HOOKS = ("ampo_specs", "ampo_run_started", "ampo_step_finished", "ampo_run_finished")


@dataclass(frozen=True, slots=True)
class PluginSource:
    """A plugin that was found but not imported: its name, who ships it, and how to import it."""

    name: str
    distribution: str
    version: str
    load: Callable[[], object]

    @property
    def key(self) -> str:
        """Its name among all plugins."""
        return f"{self.distribution}:{self.name}"

    def broken(self, reason: str, error: BaseException | None = None) -> BrokenPlugin:
        """The record of this plugin when it cannot be used."""
        return BrokenPlugin(self.name, self.distribution, self.version, reason, place_of(error) if error else "")


def _to_stderr(message: str) -> None:
    print(message, file=sys.stderr)


class Plugins:
    """The plugins of this process. `report` gets one line for each observer that fails."""

    def __init__(self, report: Callable[[str], None] = _to_stderr) -> None:
        self.catalog = Catalog()
        self.report = report
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hooks)
        self._loaded: dict[str, PluginSource] = {}
        self._reported: set[tuple[str, str, str]] = set()
        self._slow: list[str] = []

    @property
    def broken(self) -> tuple[BrokenPlugin, ...]:
        """Plugins, or specs of them, that could not be used."""
        return self.catalog.broken

    @property
    def slow(self) -> tuple[str, ...]:
        """A sentence for each plugin that imports a heavy library when it is loaded, and so slows every command."""
        return tuple(self._slow)

    @property
    def idle(self) -> tuple[str, ...]:
        """A sentence for each plugin file that has no hook, and no function of which the config names."""
        return tuple(
            f"plugin {file.file} does nothing here: it implements no hook, and the config names none of its functions "
            f"({', '.join(file.own)}); mark hooks with @hookimpl: {', '.join(HOOKS)}"
            for file in self.catalog.unasked
        )

    @property
    def loaded(self) -> tuple[PluginSource, ...]:
        """Plugins that are registered, in the order in which they were found."""
        return tuple(self._loaded.values())

    @property
    def distributions(self) -> dict[str, str]:
        """Version by distribution of all registered plugins."""
        return {source.distribution: source.version for source in self.loaded}

    @property
    def observers(self) -> tuple[PluginSource, ...]:
        """Those of `loaded` that observe runs."""
        return tuple(source for source in self.loaded if self.hooks(source) - {"ampo_specs"})

    def module(self, source: PluginSource) -> ModuleType | None:
        """The module of a registered plugin: where an object of it has the hooks, the one that it was made in."""
        plugin: object = self._manager.get_plugin(source.key)
        return plugin if isinstance(plugin, ModuleType) else sys.modules.get(getattr(plugin, "__module__", ""))

    def hooks(self, source: PluginSource) -> frozenset[str]:
        """The hooks that a registered plugin implements."""
        callers = self._manager.get_hookcallers(self._manager.get_plugin(source.key))
        return frozenset(caller.name for caller in callers or ())

    def add(self, source: PluginSource) -> None:
        """Import, register and ask a plugin for its specs. Whatever it raises is recorded, never passed on."""
        light = [name for name in HEAVY if name not in sys.modules]
        self._add(source)
        brought = [name for name in light if name in sys.modules]
        if brought:
            self._slow.append(
                f"plugin {source.name} of {source.distribution} {source.version} imports {' and '.join(brought)} when "
                "it is loaded, which slows every command; import such libraries inside the functions that use them"
            )

    def _add(self, source: PluginSource) -> None:
        try:
            plugin = source.load()
            is_file = source.version == FILE and isinstance(plugin, ModuleType)
            file = FunctionFile.of(cast(ModuleType, plugin), source.distribution, HOOKS) if is_file else None
        except BaseException as error:  # a plugin may end in SystemExit, too: the others must still load
            if is_interruption(error):
                raise
            self.catalog.add_broken(source.broken(f"cannot be imported: {describe(error)}", error))
            return
        if (fault := self._register(source, plugin, plain=file is not None and file.plain)) is not None:
            self.catalog.add_broken(source.broken(fault))
            return
        if file is not None and (file.own or file.others):
            self.catalog.add_functions(file)
        self._loaded[source.key] = source
        self._add_specs(source)

    def has(self, plugin: object) -> bool:
        """Whether `plugin`, a module or another object with hooks, is registered."""
        return self._manager.is_registered(plugin)

    def notify(
        self, hook_name: str, *, off: Collection[str] = (), **arguments: object
    ) -> list[tuple[PluginSource, object]]:
        """Call an observer hook plugin by plugin, but for those whose name is in `off`; returns what each gave that
        gave something. A plugin that raises is reported once for each hook."""
        found: list[tuple[PluginSource, object]] = []
        for source in self.loaded:
            if source.name in off:
                continue
            try:
                found += [(source, given) for given in self._call(source, hook_name, arguments)]
            except BaseException as error:  # an observer must not stop a run
                if is_interruption(error):
                    raise
                self.blame(source, hook_name, source.broken(describe(error), error))
        return found

    def blame(self, source: PluginSource, hook_name: str, fault: BrokenPlugin, about: str = "") -> None:
        """Report a fault of an observer, once for each hook and what it is about."""
        if (source.key, hook_name, about) not in self._reported:
            self._reported.add((source.key, hook_name, about))
            self.report(f"{hook_name} failed: {fault}; the run goes on")

    def _register(self, source: PluginSource, plugin: object, *, plain: bool = False) -> str | None:
        if self._manager.is_registered(plugin):
            return "registers an object that another entry point has registered"
        try:
            self._manager.register(plugin, name=source.key)
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            fault: str | None = _misspelt_hook(plugin) or str(error).replace("\n", " ")
        else:
            callers = self._manager.get_hookcallers(plugin)
            fault = (
                None
                if callers or plain
                else f"implements no hook; mark its functions with @hookimpl: {', '.join(HOOKS)}"
            )
        if fault is not None and self._manager.is_registered(plugin):
            self._manager.unregister(plugin)
        return fault

    def _call(self, source: PluginSource, hook_name: str, arguments: dict[str, object]) -> list[Any]:
        plugin = self._manager.get_plugin(source.key)
        others = [other for other in self._manager.get_plugins() if other is not plugin]
        results: list[Any] = self._manager.subset_hook_caller(hook_name, others)(**arguments)
        return results

    def _add_specs(self, source: PluginSource) -> None:
        try:
            given = self._call(source, "ampo_specs", {})
            specs = [spec for result in given for spec in (result if _is_list(result) else [result])]
        except BaseException as error:  # see `add`
            if is_interruption(error):
                raise
            self.catalog.add_broken(source.broken(f"ampo_specs failed: {describe(error)}", error))
            return
        for spec in specs:
            try:
                self.catalog.add(cast(type[ComponentSpec], spec), source.distribution, source.version, source.name)
            except PluginError as error:
                self.catalog.add_broken(source.broken(str(error)))
            except BaseException as error:  # a class can be made so that looking at it raises
                if is_interruption(error):
                    raise
                self.catalog.add_broken(source.broken(f"a spec cannot be looked at: {describe(error)}", error))


def _is_list(given: object) -> bool:
    return isinstance(given, Iterable) and not isinstance(given, str | bytes | type)


def discover(plugin_files: Sequence[str | Path] = ()) -> Plugins:
    """All installed plugins and those in `plugin_files`.

    Never fails because of a plugin: what is broken is found in the result's `broken`. Raises PluginError if a
    plugin file does not exist.
    """
    plugins = Plugins()
    for source in _installed(sys.path, plugins.catalog.add_broken):
        plugins.add(source)
    for path in plugin_files:
        plugins.add(_file_source(Path(path)))
    plugins.catalog.check_options()
    return plugins


def _installed(folders: Iterable[str], report: Callable[[BrokenPlugin], None]) -> Iterator[PluginSource]:
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
                yield PluginSource(key, name, version, _entry_point(key, text))


def _entry_point(name: str, text: str) -> Callable[[], object]:
    def load() -> object:
        try:
            return entrypoints.EntryPoint.from_string(text, name).load()
        except entrypoints.BadEntryPoint:
            raise PluginError(f"entry point {name} = {text!r} is not of the form module or module:object") from None

    return load


def _file_source(path: Path) -> PluginSource:
    resolved = path.resolve()
    if not resolved.is_file() or resolved.suffix != ".py":
        raise PluginError(f"--plugin {path}: no such Python file")
    module = resolved.parent if resolved.name == "__init__.py" else resolved  # a package by its folder's name
    return PluginSource(module.stem, str(path), FILE, lambda: _import_file(resolved, module))


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


def _misspelt_hook(plugin: object) -> str | None:
    """Which function of `plugin` is marked as a hook that does not exist, with the nearest one that does."""
    for name in dir(plugin):
        if name not in HOOKS and hasattr(getattr(plugin, name, None), f"{PROJECT}_impl"):
            near = nearest(name, HOOKS)
            hint = f"; did you mean {near!r}?" if near else ""
            return f"unknown hook {name!r}{hint or '.'} Hooks are {', '.join(HOOKS)}"
    return None
