"""The plugins of a process (entry-point group `ampo`, and files named on the command line), each loaded in its own
guard. `sources.py` finds them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pluggy

from ampo_registry import hooks
from ampo_registry.catalog import BrokenPlugin, Catalog
from ampo_registry.errors import PluginError
from ampo_registry.faults import describe, is_interruption
from ampo_registry.functions import FunctionFile
from ampo_registry.markers import PROJECT
from ampo_registry.sources import FILE, PluginSource, file_source, installed, why_not_imported
from ampo_registry.specs import ComponentSpec
from ampo_registry.text import nearest

HEAVY = ("torch", "transformers", "vllm", "deepspeed", "tensorflow", "jax")
"""What takes seconds to import, and no plugin needs before its component is built."""
HOOKS = ("ampo_specs", "ampo_run_started", "ampo_step_finished", "ampo_run_finished")


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
            f"({', '.join(file.own or file.others)}); mark hooks with @hookimpl: {', '.join(HOOKS)}"
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
            self.catalog.add_broken(source.broken(why_not_imported(source, error), error))
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
    for source in installed(sys.path, plugins.catalog.add_broken):
        plugins.add(source)
    for path in plugin_files:
        plugins.add(file_source(Path(path)))
    plugins.catalog.check_options()
    return plugins


def _misspelt_hook(plugin: object) -> str | None:
    """Which function of `plugin` is marked as a hook that does not exist, with the nearest one that does."""
    for name in dir(plugin):
        if name not in HOOKS and hasattr(getattr(plugin, name, None), f"{PROJECT}_impl"):
            near = nearest(name, HOOKS)
            hint = f"; did you mean {near!r}?" if near else ""
            return f"unknown hook {name!r}{hint or '.'} Hooks are {', '.join(HOOKS)}"
    return None
