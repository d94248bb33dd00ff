"""Writes the distribution of a new plugin, from the template of its kind."""

from __future__ import annotations

import builtins
import io
import keyword
import re
import shlex
import tokenize
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any

import yaml
from ampo_registry.catalog import Catalog
from ampo_registry.errors import ConfigError, PluginError
from ampo_registry.requirements import installed_version, own_version
from ampo_registry.step import checked_metric
from ampo_registry.text import nearest

TEMPLATES = resources.files("ampo_core.scaffold.templates")
NAME = re.compile(r"[a-z](?:[a-z0-9_]*[a-z0-9])?")
FREE_FORMS = {"credit": "advantage", "late_teacher_pool": "teacher_pool"}
"""Templates of the second form of a kind."""
CONFIGS = {"task": "configs/quickstart/prepare.yaml"}
"""Which config of the quickstart takes it; the others go into QUICKSTART."""
QUICKSTART = "configs/quickstart/ampo.yaml"


def kinds() -> tuple[str, ...]:
    """What a new plugin can be: the kinds of components, two of them in a second form too, and an observer."""
    names = (file.name for file in TEMPLATES.iterdir())
    return tuple(sorted(name[len("ampo_my_") : -len(".py")] for name in names if name.startswith("ampo_my_")))


def write_plugin(kind: str, name: str, catalog: Catalog, parent: Path) -> Path:
    """Write `parent`/ampo-NAME and return it: a package with the plugin, its test, pyproject.toml and README.md.

    Raises ConfigError, and writes nothing, for an unknown kind, a name that is no good or taken, and a folder that is
    there already.
    """
    check_name(kind, name, catalog)
    folder = parent / distribution(name)
    try:
        folder.mkdir()
    except FileExistsError:
        raise ConfigError(f"{folder} is there already; nothing was written") from None
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror}") from error
    for path, text in plugin_files(kind, name).items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def plugin_files(kind: str, name: str) -> dict[str, str]:
    """The text of each file of the distribution, by its path."""
    code, test, use = (_read(part.format(kind)) for part in ("ampo_my_{}.py", "test_my_{}.py", "my_{}.yaml"))
    mine, own_class = f"my_{kind}", _camel(f"my_{kind}")
    known = _identifiers(code + test) - {own_class} | set(dir(builtins)) | set(keyword.kwlist)
    new_class = _camel(name) if _camel(name) not in known else _camel(f"{name}_{kind}")
    code, test, use = (text.replace(mine, name).replace(own_class, new_class) for text in (code, test, use))
    config = CONFIGS.get(kind, QUICKSTART)
    settings = dict(_settings(yaml.safe_load(use)))
    version = own_version() or "0"
    values = {
        "NAME": name,
        "DISTRIBUTION": distribution(name),
        "ABOUT": code.partition("\n")[0].strip('"'),
        "USE": use.rstrip(),
        "CHECK": shlex.join(["ampo-run", config, *(f"{key}={value}" for key, value in settings.items()), "--check"]),
        "CONTRACT": ".".join(version.split(".")[:2]),
    }
    return {
        f"ampo_{name}/__init__.py": code,
        f"ampo_{name}/py.typed": "",
        f"tests/test_{name}.py": test,
        "pyproject.toml": Template(_read("pyproject.toml.in")).substitute(values),
        "README.md": Template(_read("README.md.in")).substitute(values),
    }


def check_name(kind: str, name: str, catalog: Catalog) -> None:
    """Raise ConfigError for an unknown kind, and for a name that no component can have or that is taken."""
    if kind not in kinds():
        near = nearest(kind, kinds())
        hint = f"; did you mean {near}?" if near else ""
        raise ConfigError(f"--new-plugin: there is no kind {kind!r}{hint}\nallowed: {', '.join(kinds())}")
    if not NAME.fullmatch(name):
        fitting = re.sub(r"^[^a-z]+|[^a-z0-9_]|_+$", "", re.sub(r"[\s-]+", "_", name.lower()))
        hint = f"; {fitting} would do" if fitting else ""
        raise ConfigError(f"--new-plugin: a name has lower case letters, digits and _, found {name!r}{hint}")
    taken = [entry for entry in catalog.entries() if (entry.kind, entry.name) == (FREE_FORMS.get(kind, kind), name)]
    if taken:
        raise ConfigError(
            f"--new-plugin: {taken[0].distribution} {taken[0].version} has {taken[0].kind} {name} already"
        )
    if find_spec(f"ampo_{name}") is not None or installed_version(distribution(name)) is not None:
        raise ConfigError(f"--new-plugin: {distribution(name)}, or a module ampo_{name}, is installed already")
    try:
        checked_metric(f"{name}/value", 0.0)
    except PluginError as error:
        raise ConfigError(f"--new-plugin: metrics could not be named after {name!r}: {error}") from error


def distribution(name: str) -> str:
    """The distribution of the plugin `name`."""
    return f"ampo-{name.replace('_', '-')}"


def _read(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _identifiers(code: str) -> set[str]:
    return {
        token.string for token in tokenize.generate_tokens(io.StringIO(code).readline) if token.type == tokenize.NAME
    }


def _settings(block: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """KEY and VALUE of each component, list and plain value in `block`, as on the command line."""
    for key, value in block.items():
        if isinstance(value, Mapping) and "type" not in value:
            yield from _settings(value, f"{path}{key}.")
        else:
            shown = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
            yield f"{path}{key}", shown.removesuffix("\n").removesuffix("\n...")
