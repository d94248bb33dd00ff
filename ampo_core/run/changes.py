"""What differs between a run as it began and as it is asked for now, key by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError

from ampo_core.config.moved import in_keys_of_today
from ampo_core.config.yaml_source import parse_yaml
from ampo_core.run.files import read_object
from ampo_core.run.manifest import NUMERIC_PACKAGES

Change = tuple[str, object, object]
"""(dotted key, before, after); what is not there counts as None."""

PLACE_ONLY = ("run.name", "run.dir")
"""Keys of a config that say where a run lies and nothing else: a folder may be moved."""

OWN = "ampo-rl"
RENAMED = {"ampo": OWN}
"""Distributions whose name in older manifests is another."""
GOES_ON = ("0.1", "0.2", "0.3")
"""Releases of our own distribution that compute the same: a run of one goes on under another."""


def differences(before: object, after: object, key: str = "") -> list[Change]:
    """(dotted key, before, after) wherever two trees of JSON types differ; a missing entry counts as None.

    Entries of a list that have a `name` each are told apart by it.
    """
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        names = list(dict.fromkeys([*before, *after]))
        inner = (differences(before.get(n), after.get(n), f"{key}.{n}" if key else str(n)) for n in names)
        return [change for changes in inner for change in changes]
    if (ours := _by_name(before)) and (theirs := _by_name(after)) and _same_order(ours, theirs):
        return differences(ours, theirs, key)
    return [] if before == after else [(key, before, after)]


def _by_name(value: object) -> dict[str, object]:
    """The entries of a list by their `name`, such as stages or teachers; empty for anything else."""
    entries = value if isinstance(value, list) else []
    named: dict[str, object] = {
        entry["name"]: entry for entry in entries if isinstance(entry, Mapping) and "name" in entry
    }
    return named if len(named) == len(entries) else {}


def _same_order(before: Mapping[str, object], after: Mapping[str, object]) -> bool:
    """True iff the names that stand in both stand in the same order."""
    return [name for name in before if name in after] == [name for name in after if name in before]


def listed(changes: Sequence[Change]) -> str:
    """A line for each change: `key: before -> after`."""
    return "\n".join(f"  {key}: {before!r} -> {after!r}" for key, before, after in changes)


def config_changes(folder: Path, config: Mapping[str, Any]) -> list[Change]:
    """How the resolved `config` differs from config.yaml in `folder`, but for where the run lies and for keys that have
    moved since."""
    return config_differences(read_config(folder), config)


def config_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """How two resolved configs differ, but for where the run lies, and for keys that one does not have and that say
    nothing in the other: an older release knows fewer."""
    changes = differences(before, after)
    return [change for change in changes if change[0] not in PLACE_ONLY and any(map(_says_something, change[1:]))]


def _says_something(value: object) -> bool:
    return value not in (None, {}, [])


def of_older_release(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """What is said where an older release began the run in `folder`: which one, and which keys of its config have
    moved."""
    before, now = (found.get("versions", {}).get(OWN) for found in (read_manifest(folder), manifest))
    notes = [f"{folder}: {OWN} {before} began it, {now} goes on with it"] if _goes_on(before, now) else []
    notes += _own_code_notes(folder, manifest)
    moved = in_keys_of_today(_written_config(folder / "config.yaml"))[1]
    lines = "\n".join(f"  {line}" for line in moved)
    return [*notes, *([f"{folder}: its config is older, and these keys have moved since:\n{lines}"] if moved else [])]


def _own_code_notes(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """What is said where AMPO is a checkout that was edited since: whoever works on it goes on all the same."""
    before, now = (found.get("own_code") or {} for found in (read_manifest(folder), manifest))
    edited = [name for name in now if name in before and before[name] != now[name]]
    text = f"{folder}: the code of {', '.join(edited)} has been edited since it began; what comes may differ for that"
    return [text] if edited else []


def _goes_on(before: object, after: object) -> bool:
    """True for two releases of our own distribution that differ and compute the same."""
    return before != after and all(".".join(str(version).split(".")[:2]) in GOES_ON for version in (before, after))


def manifest_changes(folder: Path, manifest: Mapping[str, Any]) -> list[Change]:
    """How `manifest` differs from manifest.json in `folder` in what may change a result."""
    return manifest_differences(read_manifest(folder), manifest)


def manifest_differences(before: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[Change]:
    """How two manifests differ in what may change a result.

    That is the versions of Python (its first two numbers) and of NUMERIC_PACKAGES, the plugins, the hashes of their
    files, of data, models and questions, and the teachers. Platform, number of CPUs, other packages, edits of our own
    code and a release of our own that computes the same are noted in a manifest and may differ.
    """
    # an older run does not know them
    before = {**{part: manifest.get(part) for part in ("questions", "plugin_files")}, **before}
    own = {f"{part}.{OWN}" for part in ("versions", "plugins")}
    changes = differences(_what_matters(before), _what_matters(manifest))
    return [(key, old, new) for key, old, new in changes if not (key in own and _goes_on(old, new))]


def read_config(folder: Path) -> dict[str, Any]:
    """The resolved config of the run in `folder`, as JSON types and in today's keys. Raises ConfigError if it cannot be
    read."""
    return parse_config(folder / "config.yaml")


def parse_config(path: Path) -> dict[str, Any]:
    """The resolved config in a file, as `read_config` gives it."""
    return in_keys_of_today(_written_config(path))[0]


def _written_config(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    root, _ = parse_yaml(text, str(path))
    config = root.plain() if root is not None else None
    if not isinstance(config, dict):
        raise ConfigError(f"{path} holds no config")
    return config


def read_manifest(folder: Path) -> dict[str, Any]:
    """manifest.json of the run in `folder`; a distribution that has been renamed stands under its name of today.

    Raises ConfigError if it cannot be read.
    """
    return parse_manifest(folder / "manifest.json")


def parse_manifest(path: Path) -> dict[str, Any]:
    """The manifest in a file, as `read_manifest` gives it."""
    manifest = read_object(path, hint="; restore it, or choose another run.name")
    renamed: dict[str, Any] = {part: _renamed(manifest[part]) for part in ("versions", "plugins") if part in manifest}
    return {**manifest, **renamed}


def _renamed(versions: object) -> object:
    if not isinstance(versions, dict):
        return versions
    return {RENAMED.get(name, name): version for name, version in versions.items()}


def _what_matters(manifest: Mapping[str, Any]) -> dict[str, Any]:
    found = manifest.get("versions") or {}
    versions = {name: found.get(name) for name in ("python", *NUMERIC_PACKAGES)}
    versions["python"] = ".".join(str(versions["python"]).split(".")[:2])
    parts = ("plugins", "plugin_files", "data", "models", "teachers", "questions")
    return {"versions": versions, **{part: manifest.get(part) for part in parts}}
