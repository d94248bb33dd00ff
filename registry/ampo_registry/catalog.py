"""The catalog: which components exist, by kind and name, and who brought them.

A value from YAML (`name` or `{type: name, …options}`) is resolved here into a frozen spec.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from ampo_registry.checks import KINDS, check_spec
from ampo_registry.errors import PluginError
from ampo_registry.faults import describe, is_interruption
from ampo_registry.functions import NO_FILES, FunctionFile, PluginFunction
from ampo_registry.options import lost_option
from ampo_registry.specs import ComponentSpec
from ampo_registry.text import a, nearest


class ComponentError(PluginError, ValueError):
    """A component value that cannot be resolved. `location` is where in the value the fault lies.

    It is a ValueError too, so a pydantic validator that calls `resolve` turns it into an error at its own place
    (the exception itself is then found in the error's `ctx["error"]`).
    """

    def __init__(self, message: str, location: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.location = location


@dataclass(frozen=True, slots=True)
class BrokenPlugin:
    """A plugin, or a part of one, that could not be used: `reason` says why and `where` is file:line, if known."""

    name: str
    distribution: str
    version: str
    reason: str
    where: str = ""

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.name} of {self.distribution} {self.version}: {self.reason}{place}"


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A component that can be named in YAML."""

    kind: str
    name: str
    spec: type[ComponentSpec]
    plugin: str
    distribution: str
    version: str

    @property
    def summary(self) -> str:
        """The first line of the spec's docstring."""
        return (self.spec.__doc__ or "").strip().partition("\n")[0]

    @property
    def options(self) -> tuple[str, ...]:
        """The option names, without `type`."""
        return tuple(name for name in self.spec.model_fields if name != "type")


class Catalog:
    """All components by kind and name. `broken` lists the plugins that may hide further names."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], CatalogEntry] = {}
        self._claims: dict[tuple[str, str], list[CatalogEntry]] = {}
        self._broken: list[BrokenPlugin] = []
        self._files: list[FunctionFile] = []
        self._asked: set[str] = set()

    @property
    def files(self) -> tuple[FunctionFile, ...]:
        """The plugin files with functions that a config may name."""
        return tuple(self._files)

    @property
    def unasked(self) -> tuple[FunctionFile, ...]:
        """Those that bring nothing else, and no config that was read names a function of."""
        return tuple(file for file in self._files if file.plain and file.module not in self._asked)

    @property
    def broken(self) -> tuple[BrokenPlugin, ...]:
        """The broken plugins that were recorded."""
        return tuple(self._broken)

    def add(self, spec: type[ComponentSpec], distribution: str, version: str, plugin: str = "") -> CatalogEntry:
        """Enter a spec class.

        Raises PluginError if the class does not keep the contract, or if its name is taken: then the name cannot
        be resolved any more, for nobody could tell which of the two is meant.
        """
        kind, name = check_spec(spec)
        entry = CatalogEntry(kind, name, spec, plugin or distribution, distribution, version)
        claims = self._claims.setdefault((kind, name), [])
        claims.append(entry)
        if len(claims) > 1:
            self._entries.pop((kind, name), None)
            raise PluginError(_claimed_twice(claims))
        self._entries[kind, name] = entry
        return entry

    def add_broken(self, plugin: BrokenPlugin) -> None:
        """Record a plugin that could not be used."""
        self._broken.append(plugin)

    def add_functions(self, file: FunctionFile) -> None:
        """Enter the functions of a plugin file."""
        self._files.append(file)

    def function(self, name: str) -> PluginFunction:
        """The function `NAME`, or `FILE.NAME`, of a plugin file. Raises ComponentError if there is none, or several."""
        short = name.rpartition(".")[2]
        files = [file for file in self._files if file.has(name)]
        found = [file for file in files if short in file.own] or files
        if len(found) > 1:
            which = " or ".join(f"{file.module}.{short}" for file in found)
            places = " and in ".join(file.file for file in found)
            raise ComponentError(f"there is a function {short} in {places}; say which: {which}")
        if not found:
            raise ComponentError(self._no_function(name, short))
        self._asked.add(found[0].module)
        return PluginFunction(found[0].module, short, found[0].file, name)

    def check_options(self) -> None:
        """Break the specs whose default options do not survive the resolved config. Once all plugins are here: a
        default may name another component."""
        for entry in self.entries():
            try:
                spec = entry.spec.model_validate({}, context={"catalog": self})
            except ValueError:  # it has a required option, or one of its components is not here
                continue
            except BaseException as error:  # a plugin's own validators
                if is_interruption(error):
                    raise
                fault: str | None = f"{entry.spec.__name__}: its default options are refused: {describe(error)}"
            else:
                fault = lost_option(spec, {"catalog": self})
            if fault is not None:
                del self._entries[entry.kind, entry.name]
                self.add_broken(BrokenPlugin(entry.plugin, entry.distribution, entry.version, fault))

    def kinds(self) -> tuple[str, ...]:
        """All kinds, in the order of the loop."""
        return tuple(KINDS)

    def names(self, kind: str) -> tuple[str, ...]:
        """The names of a kind, sorted."""
        return tuple(entry.name for entry in self.entries(kind))

    def entries(self, kind: str | None = None) -> tuple[CatalogEntry, ...]:
        """The entries of a kind sorted by name, or all of them by kind and name."""
        if kind is not None and kind not in KINDS:
            raise PluginError(f"unknown kind of component {kind!r}; kinds are {', '.join(KINDS)}")
        kinds = (kind,) if kind is not None else tuple(KINDS)
        found = [entry for entry in self._entries.values() if entry.kind in kinds]
        return tuple(sorted(found, key=lambda entry: (kinds.index(entry.kind), entry.name)))

    def entry(self, kind: str, name: str, location: tuple[str, ...] = ()) -> CatalogEntry:
        """The entry of a name. Raises ComponentError with the allowed names and the nearest one."""
        if kind in KINDS and (kind, name) in self._entries:
            return self._entries[kind, name]
        if len(claims := self._claims.get((kind, name), [])) > 1:
            raise ComponentError(_claimed_twice(claims), location)
        raise ComponentError(self._unknown(kind, name), location)

    def resolve(self, kind: str, value: object) -> ComponentSpec:
        """The spec that `value` (a name or `{type: name, …options}`) stands for.

        Raises ComponentError for a value of another form or an unknown name, and pydantic's ValidationError, with
        locations relative to `value`, for wrong options.
        """
        context = {"catalog": self}
        if isinstance(value, ComponentSpec):
            if value.kind != kind:
                raise ComponentError(f"expected {a(kind)}, found the {value.kind} {type(value).__name__}")
            return value
        if isinstance(value, str):
            return self.entry(kind, value).spec.model_validate({}, context=context)
        if isinstance(value, Mapping):
            options = dict(cast(Mapping[str, object], value))
            name = options.get("type")
            if isinstance(name, str):
                return self.entry(kind, name, ("type",)).spec.model_validate(options, context=context)
            if "type" in options:
                raise ComponentError(f"`type` must be the name of {a(kind)}, found {name!r}", ("type",))
            raise ComponentError(f"{a(kind)} given as a mapping needs `type`; allowed: {self._allowed(kind)}")
        raise ComponentError(f"{a(kind)} is a name or {{type: name, options}}, found {value!r}")

    def _no_function(self, name: str, short: str) -> str:
        if not self._files and not self._broken:
            return f"no function {name}: {NO_FILES}"
        near = nearest(short, [own for file in self._files for own in file.own])
        lines = [f"no file named with --plugin has a function {name}" + (f"; did you mean {near!r}?" if near else "")]
        lines += [f"functions of {file}" for file in self._files]
        return "\n".join([*lines, *self._hidden()])

    def _hidden(self) -> list[str]:
        lines = [f"  {plugin}" for plugin in self._broken]
        return ["broken plugins, which may hide it:", *lines] if lines else []

    def _allowed(self, kind: str) -> str:
        return ", ".join(self.names(kind)) or "none"

    def _unknown(self, kind: str, name: str) -> str:
        near = nearest(name, self.names(kind))
        lines = [f"unknown {kind} {name!r}" + (f"; did you mean {near!r}?" if near else "")]
        lines.append(f"allowed: {self._allowed(kind)}")
        return "\n".join([*lines, *self._hidden()])


def _claimed_twice(claims: Sequence[CatalogEntry]) -> str:
    owners = " and by ".join(
        f"{c.distribution} {c.version} (plugin {c.plugin}, class {c.spec.__name__})" for c in claims
    )
    return f"{claims[0].kind} {claims[0].name!r} is claimed by {owners}; remove one of them"
