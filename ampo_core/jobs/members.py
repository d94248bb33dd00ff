"""Jobs that run inside another one's folder: the stages of a pipeline, the runs of a suite."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError

from ampo_core.config.jobs import PipelineJob, SuiteJob
from ampo_core.config.load import LoadedConfig, load_config
from ampo_core.config.nodes import KeyPath, dotted, nearest, value_at
from ampo_core.config.references import REFERENCE, leaves, names_in
from ampo_core.run.changes import config_changes, listed, read_manifest
from ampo_core.run.environment import Environment
from ampo_core.run.files import write_atomically, write_json
from ampo_core.run.folder import RunFolder
from ampo_core.run.manifest import build_manifest


@dataclass(frozen=True, slots=True)
class Member:
    """A job inside the folder `root`, named `name`. `place` is what errors call it, e.g. `suite.yaml: runs.ampo`.

    `threads` are its share of the CPU threads, None for as many as its config says.
    """

    name: str
    config: Path
    overrides: Mapping[str, Any]
    place: str
    root: Path
    seed: int
    threads: int | None = None

    @property
    def folder(self) -> Path:
        """Its run folder."""
        return self.root / self.name


@dataclass(slots=True)
class Finished:
    """What is known of the members so far: name -> output and run folder."""

    out: dict[str, Path] = field(default_factory=dict)
    run: dict[str, Path] = field(default_factory=dict)

    def resolve(self, text: str, place: str) -> str:
        """`text` with its references replaced. Raises ConfigError for one that has not run before."""

        def path_of(name: str, what: str, written: str) -> str:
            if name not in self.out:
                raise ConfigError(f"{place}: {written}: no earlier stage is named {name!r}{nearest(name, self.out)}")
            return str((self.out if what == "out" else self.run)[name])

        return REFERENCE.sub(lambda match: path_of(match[1], match[2], match[0]), text)

    def resolved(self, value: Any, place: str) -> Any:
        """`value`, a tree of JSON types, with the references in its texts replaced."""
        if isinstance(value, str):
            return self.resolve(value, place)
        if isinstance(value, Mapping):
            return {key: self.resolved(child, place) for key, child in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.resolved(child, place) for child in value]
        return value


def settings_of(member: Member, finished: Finished, environment: Environment) -> tuple[dict[str, Any], frozenset[str]]:
    """(overrides that make a member's config this member's, the names that it refers to).

    Its seed is the suite's or pipeline's unless its own overrides say another. References are filled in, also those
    that stand in its config file; but not those of a pipeline, which are to its own stages.
    """
    settings, uses, _ = _settled(member, finished, environment)
    return settings, uses


def _settled(
    member: Member, finished: Finished, environment: Environment
) -> tuple[dict[str, Any], frozenset[str], LoadedConfig | None]:
    """As `settings_of`, with the resolved config if no reference had to be filled in for it."""
    said = f"{member.place} (overrides)"
    uses = names_in(member.overrides)
    overrides = {
        key: finished.resolved(value, f"{member.place}.overrides.{key}") for key, value in member.overrides.items()
    }
    overrides = {"run.seed": member.seed, **overrides, "run.dir": str(member.root), "run.name": member.name}
    if member.threads is not None:
        overrides["resources.threads"] = member.threads
    loaded = load_config(member.config, overrides, environment.plugins, overrides_from=said)
    if loaded.job.made_of_others:
        return overrides, frozenset(uses), loaded
    filled = dict(_filled(path, loaded.data, finished, member) for path, text in leaves(loaded.data) if names_in(text))
    return {**overrides, **filled}, frozenset(uses | names_in(loaded.data)), None if filled else loaded


def _filled(path: KeyPath, data: Mapping[str, Any], finished: Finished, member: Member) -> tuple[str, Any]:
    """(dotted key, value) that fills in the reference at `path`; where a name in it has a dot, of the block around."""
    upto = next((i for i, key in enumerate(path) if "." in str(key)), len(path))
    return dotted(path[:upto]), finished.resolved(value_at(data, path[:upto]), f"{member.config}: {dotted(path)}")


def load_member(member: Member, finished: Finished, environment: Environment) -> tuple[LoadedConfig, frozenset[str]]:
    """A member's resolved config, inside its root and without references, and the names that it refers to."""
    settings, uses, loaded = _settled(member, finished, environment)
    if loaded is not None:
        return loaded, uses
    said = f"{member.place} (overrides)"
    return load_config(member.config, settings, environment.plugins, overrides_from=said), uses


def arguments_of(member: Member, finished: Finished, environment: Environment) -> list[str]:
    """CONFIG KEY=VALUE …: the arguments of ampo-run that run a member."""
    settings, _ = settings_of(member, finished, environment)
    return [str(member.config), *(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in settings.items())]


def check_unchanged(what: str, member: Member, loaded: LoadedConfig) -> None:
    """Raise ConfigError if the finished member had another config than `loaded`, with the differences."""
    changes = config_changes(member.folder, loaded.data)
    if changes:
        raise ConfigError(
            f"{what} {member.name} is finished in {member.folder}, and its config has changed since:\n"
            f"{listed(changes)}\nUndo the change, choose another run.name, or remove {member.folder} to run the "
            f"{what} again"
        )


def check_current(what: str, member: Member, pending: frozenset[str]) -> None:
    """Raise ConfigError if a finished member was made from others that are to run again (`pending`)."""
    if pending:
        raise ConfigError(
            f"{what} {member.name} in {member.folder} was made from an earlier run of {', '.join(sorted(pending))}, "
            f"which is to run again; remove {member.folder} to run it again too"
        )


def is_folder_of(path: Path, job: str) -> bool:
    """True iff `path` is the folder of a pipeline or suite (`job`)."""
    try:
        manifest = read_manifest(path)
    except ConfigError:
        return False
    return manifest.get("job") == job and (path / "config.yaml").exists()


def open_folder(job: PipelineJob | SuiteJob, environment: Environment) -> RunFolder:
    """The folder of a pipeline or suite, made or continued; what stands in it is checked before."""
    manifest = build_manifest(job=job.job, seed=job.run.seed, plugins=environment.plugins.distributions)
    path = job.run.folder
    if not is_folder_of(path, job.job):
        return RunFolder.create(job.run, environment.yaml, manifest)
    (path / "done").unlink(missing_ok=True)
    write_atomically(path / "config.yaml", environment.yaml)
    write_json(path / "manifest.json", manifest)
    return RunFolder(path)
