"""From a config file to a checked job: layers, merge, validation, rules between keys, what is missing here."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ampo_registry.discovery import Plugins, discover
from ampo_registry.errors import ConfigError
from ampo_registry.text import nearest as nearest_match
from pydantic import ValidationError

from ampo_core.checked.settings import setting_faults
from ampo_core.config.data_files import DataRead
from ampo_core.config.explain import as_written, explain, misread
from ampo_core.config.inner import Inner, bad_references, with_absolute_paths
from ampo_core.config.jobs import JOBS, Job
from ampo_core.config.layers import COMMAND_LINE, complete, merge, override_nodes, put, read_layers, repeated
from ampo_core.config.machines import launcher_faults, unmet_resources
from ampo_core.config.nodes import Finding, KeyPath, Node, Place, Problem, dotted, nearest, raise_problems
from ampo_core.config.observers import unknown_observers
from ampo_core.config.positions import beyond_positions, beyond_room
from ampo_core.config.ready import component_warnings, downloads, missing_files, unavailable
from ampo_core.config.references import is_filled_in, leaves
from ampo_core.config.schema import SchemaView, view_of
from ampo_core.config.yaml_source import dump_yaml


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A valid config. `data` is the resolved config in JSON types.

    `warnings` are advice; `blockers` keep it from running on this machine or in this release. `reads` are the rows that
    it and the configs that it names read, each with the place that says so.
    """

    job: Job
    data: Mapping[str, Any]
    path: Path
    warnings: tuple[str, ...] = ()
    blockers: tuple[str, ...] = ()
    reads: tuple[tuple[Place, DataRead], ...] = ()

    @property
    def yaml(self) -> str:
        """`data` as text that can be run again."""
        return dump_yaml(self.data)

    def require_ready(self) -> None:
        """Raise ConfigError with all blockers, if there are any."""
        if self.blockers:
            raise ConfigError("\n".join(self.blockers))


def load_config(
    path: Path | str,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    plugins: Plugins | None = None,
    *,
    overrides_from: str = COMMAND_LINE,
) -> LoadedConfig:
    """Read, merge and check the config at `path`, and those of its stages.

    `overrides` are `KEY=VALUE` texts or a mapping of dotted keys to values; `overrides_from` is what errors call
    their place. `plugins` defaults to those that are installed. Raises ConfigError with everything that is wrong.
    """
    if plugins is None:
        plugins = discover()
    loaded, root = _load_one(Path(path), overrides, plugins, overrides_from)
    if loaded.job.made_of_others:
        return _with_inner(loaded, root, plugins)
    return replace(loaded, blockers=(*loaded.blockers, *map(str, _unfilled(root))))


def _load_one(
    path: Path, overrides: Sequence[str] | Mapping[str, Any], plugins: Plugins, overrides_from: str
) -> tuple[LoadedConfig, Node]:
    """The config at `path` without those that it names."""
    layers = read_layers(path)
    settings = override_nodes(overrides, overrides_from)
    model = JOBS[_job_name(layers, settings)]
    view = view_of(model, plugins.catalog)
    root = layers[0]
    for layer in layers[1:]:
        root = merge(root, layer, view.root, view)
    # a `type` first, for it replaces a component with all its options
    for key, value in sorted(settings, key=lambda setting: not setting[0].endswith(".type")):
        root = put(root, key.split("."), value, view.root, view)
    root = with_absolute_paths(Node(complete(root, view.root, view).value, layers[-1].place), path)
    job, problems = _validate(model, root, view, plugins)
    raise_problems([as_written(problem, [key for key, _ in settings], overrides_from) for problem in problems])
    assert job is not None
    data = job.model_dump(mode="json")
    raise_problems(misread(root, data, view))
    warnings, blockers = _findings(job, root)
    reads = tuple((root.place_of(read.path), read) for read in job.used_data())
    return LoadedConfig(job, data, path, (*repeated(settings), *warnings), blockers, reads), root


def _job_name(layers: Sequence[Node], settings: Sequence[tuple[str, Node]]) -> str:
    said = [node for layer in layers if (node := layer.child("job"))] + [node for key, node in settings if key == "job"]
    if not said:
        written = [(key, node.place) for layer in layers for key, node in layer.entries()]
        meant = [(key, place, nearest_match(key, ("job", "extends"))) for key, place in written]
        raise_problems([Problem(p, (key,), f"no such key; did you mean {near}?") for key, p, near in meant if near])
        raise ConfigError(f"{layers[-1].place}: job: missing; expected one of {', '.join(JOBS)}")
    name = said[-1].plain()
    if not isinstance(name, str) or name not in JOBS:
        raise ConfigError(f"{said[-1].place}: job: there is no job {name!r}{nearest(str(name), JOBS)}")
    return name


def _validate(model: type[Job], root: Node, view: SchemaView, plugins: Plugins) -> tuple[Job | None, list[Problem]]:
    try:
        job = model.model_validate_json(json.dumps(root.plain()), strict=True, context={"catalog": plugins.catalog})
    except ValidationError as error:
        return None, explain(error, root, view, plugins.broken)
    machines = job.machines()
    ranks = 1 if machines is None else machines.devices * machines.nodes
    heat: float = getattr(getattr(job, "rollout", None), "temperature", 1.0)
    asked = [(path, setting_faults(spec, ranks, heat, plugins.catalog)) for path, spec in job.used_components()]
    faults = [(path, text) for path, found in asked for text in found] + list(unknown_observers(job, plugins))
    if faults:
        return job, [root.problem(path, text) for path, text in faults]
    findings = _all_findings(job)
    return job, [root.problem(f.path, f.text) for f in findings if f.severity == "error"]


def _all_findings(job: Job) -> list[Finding]:
    return [*job.findings(), *beyond_positions(job), *beyond_room(job), *component_warnings(job)]


def _findings(job: Job, root: Node) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(warnings, blockers) as texts with their places."""

    def say(path: KeyPath, text: str) -> str:
        return str(root.problem(path, text))

    warnings = [say(finding.path, finding.text) for finding in _all_findings(job)]
    warnings += [say(path, text) for path, text in downloads(job)]
    blockers = [*unavailable(job), *missing_files(job)]
    machines = job.machines()
    if machines is not None:
        blockers += unmet_resources(machines, os.environ)
    return tuple(warnings), (*launcher_faults(os.environ), *(say(path, text) for path, text in blockers))


def _unfilled(root: Node) -> Iterator[Problem]:
    """The values that name the output of a stage or run, which only a pipeline or suite can fill in."""
    for path, text in leaves(root.plain()):
        if is_filled_in(text):
            yield root.problem(path, f"{text} is filled in by a pipeline or suite; run that instead")


def _with_inner(loaded: LoadedConfig, root: Node, plugins: Plugins) -> LoadedConfig:
    """`loaded` with the findings of the configs it names and is to run.

    Raises ConfigError with the problems of all of them.
    """
    problems: list[str] = []
    inner: list[tuple[Inner, LoadedConfig]] = []
    for item in loaded.job.inner_configs():
        place, path = root.place_of(item.path), _shown(Path(item.config))
        wrong = list(bad_references(item.known, item.overrides))
        try:
            found, _ = _load_one(path, item.overrides, plugins, f"{place} (overrides)")
            unfit = found.job.misplaced(str(item.path[0]))
            if found.job.made_of_others and unfit is None:
                found = load_config(path, item.overrides, plugins)
        except ConfigError as error:
            problems += [str(Problem(place, item.path, text)) for text in wrong]
            problems.append(f"{place}: {dotted(item.path)}: its config is wrong:\n{error}")
            continue
        inner.append((item, found))
        if not found.job.made_of_others:  # whose references are to its own stages
            wrong += bad_references(item.known, found.data)
        problems += [str(Problem(place, item.path, text)) for text in (*wrong, *([unfit] if unfit else []))]
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    written = {item.path: {**item.overrides, "": found.data} for item, found in inner}
    left_out = loaded.job.left_out(written)
    asked = [found for item, found in inner if item.path not in left_out]
    together = [str(root.problem(found.path, found.text)) for found in loaded.job.findings_together(written)]
    warnings = [*loaded.warnings, *together, *(text for found in asked for text in found.warnings)]
    blockers = [*loaded.blockers, *(text for found in asked for text in found.blockers)]
    reads = (*loaded.reads, *(read for found in asked for read in found.reads))
    return replace(
        loaded, warnings=tuple(dict.fromkeys(warnings)), blockers=tuple(dict.fromkeys(blockers)), reads=reads
    )


def _shown(path: Path) -> Path:
    """`path` as errors name it: relative to the working directory where it lies inside."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
