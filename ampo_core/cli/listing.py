"""`ampo-run --plugins`: the components that are installed, and the options of one."""

from __future__ import annotations

import json
from collections.abc import Iterable

from ampo_registry.catalog import BrokenPlugin, CatalogEntry
from ampo_registry.discovery import Plugins
from ampo_registry.errors import ConfigError
from ampo_registry.functions import FunctionFile
from ampo_registry.sources import PluginSource
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ampo_core.checked.call import Asked
from ampo_core.config.nodes import nearest
from ampo_core.config.schema import Schema, SchemaView


def show_plugins(plugins: Plugins, console: Console) -> None:
    """A table of all components by kind, then the observers, and the broken plugins with their reasons."""
    table = _table()
    for header in ("kind", "name"):
        table.add_column(header, no_wrap=True)
    for header in ("what it does", "options", "distribution"):
        table.add_column(header, overflow="fold")
    for kind in plugins.catalog.kinds():
        for i, entry in enumerate(plugins.catalog.entries(kind)):
            table.add_row(
                f"[bold]{kind}[/]" if i == 0 else "",
                f"[cyan]{entry.name}[/]",
                escape(entry.summary + _unavailable(entry)),
                ", ".join(entry.options),
                escape(f"{entry.distribution} {entry.version}"),
            )
    console.print(table)
    _show_functions(plugins.catalog.files, console)
    _show_observers(plugins.observers, plugins, console)
    show_broken(plugins.broken, console)


def _show_observers(sources: Iterable[PluginSource], plugins: Plugins, console: Console) -> None:
    """A line for each observer: who brings it, when it is called, and how to turn it off."""
    for source in sources:
        called = ", ".join(sorted(plugins.hooks(source) - {"ampo_specs"}))
        text = f"{source.name} of {source.distribution} {source.version}: {called}"
        off = f"; off with observers: {{{source.name}: false}}"
        console.print(f"observer {escape(text + off)}", soft_wrap=True)


def _show_functions(files: Iterable[FunctionFile], console: Console) -> None:
    """A line for each plugin file with functions that a reward may name."""
    for file in files:
        if file.own:
            text = f"functions of {file}; reward: {{type: function, function: NAME, style: verl | trl}}"
            console.print(escape(text), soft_wrap=True)


def show_broken(broken: Iterable[BrokenPlugin], console: Console) -> None:
    """One paragraph for each broken plugin."""
    for plugin in broken:
        console.print(f"[red]broken[/] {escape(str(plugin))}", soft_wrap=True)


def show_plugin(name: str, plugins: Plugins, console: Console) -> bool:
    """Docstring and options of the components called `name` (of several kinds, if so), or of that kind; the
    functions of a plugin file, or what is known of an observer. Returns False if a plugin of that name is broken.

    Raises ConfigError if there is none, with the nearest match.
    """
    entries = [entry for entry in plugins.catalog.entries() if name in (entry.name, entry.kind)]
    broken = [plugin for plugin in plugins.broken if name in (plugin.name, plugin.distribution)]
    files = [file for file in plugins.catalog.files if name == file.module or name in file.own]
    observers = [source for source in plugins.observers if name in (source.name, "observer")]
    if not entries and not broken and not files and not observers:
        names = dict.fromkeys([*plugins.catalog.kinds(), *(entry.name for entry in plugins.catalog.entries())])
        names |= dict.fromkeys(source.name for source in plugins.observers)
        hidden = "".join(f"\nbroken: {plugin}" for plugin in plugins.broken)
        raise ConfigError(f"no component is named {name!r}{nearest(name, names)}{hidden}")
    for entry in entries:
        _show_entry(entry, plugins, console)
    _show_functions(files, console)
    _show_observers(observers, plugins, console)
    show_broken(broken, console)
    return not broken


def _show_entry(entry: CatalogEntry, plugins: Plugins, console: Console) -> None:
    source = f"plugin {entry.plugin} of {entry.distribution} {entry.version}"
    console.print(f"[bold]{entry.kind}[/] [cyan]{entry.name}[/]  {escape(source)}{escape(_unavailable(entry))}\n")
    console.print(escape(_unwrapped(entry.spec.__doc__ or "")), "")
    table = _table()
    table.add_column("option", no_wrap=True)
    for header in ("what may stand there", "default", "meaning"):
        table.add_column(header, overflow="fold")
    for row in options(entry, plugins):
        table.add_row(f"[cyan]{row[0]}[/]", *map(escape, row[1:]))
    console.print(table if entry.options else "no options", "")


def options(entry: CatalogEntry, plugins: Plugins) -> list[tuple[str, str, str, str]]:
    """(name, expected, default, description) of each option of a component."""
    view = SchemaView(entry.spec, plugins.catalog)
    block = view.resolve(view.root)
    rows = []
    for name, schema in block.get("properties", {}).items():
        if name != "type":
            resolved = view.resolve(schema)
            rows.append(
                (name, view.describe(schema), default_text(schema, name, block), resolved.get("description", ""))
            )
    return rows


def default_text(schema: Schema, name: str, block: Schema) -> str:
    """The default of a key as it would stand in YAML; `required` where it must be given."""
    if name in block.get("required", ()):
        return "required"
    return json.dumps(schema["default"], ensure_ascii=False) if "default" in schema else ""


def _table() -> Table:
    return Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))


def _unavailable(entry: CatalogEntry) -> str:
    try:
        reason = Asked.of(entry.spec.model_construct()).ask("unavailable")
    except ConfigError as error:  # a plugin's own code; the listing must go on, and says so
        reason = str(error)
    return f" (not available here: {reason})" if reason else ""


def _unwrapped(text: str) -> str:
    """A docstring with its paragraphs as single lines."""
    paragraphs = [" ".join(part.split()) for part in text.strip().split("\n\n")]
    return "\n\n".join(paragraphs)
