"""From a config file to a checked job: layers, merge, validation, rules between keys, what is missing here."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ampo_registry.discovery import Plugins, discover
from ampo_registry.errors import ConfigError
from pydantic import ValidationError

from ampo_core.config.checks import check_job
from ampo_core.config.explain import explain
from ampo_core.config.jobs import JOBS, Job, PipelineJob, SuiteJob
from ampo_core.config.layers import COMMAND_LINE, complete, merge, nest, override_nodes, read_layers
from ampo_core.config.machines import unmet_resources
from ampo_core.config.nodes import KeyPath, Node, Problem, dotted, nearest, raise_problems
from ampo_core.config.ready import STAGE_OUTPUT, hub_models, missing_files, unavailable
from ampo_core.config.schema import SchemaView
from ampo_core.config.yaml_source import dump_yaml

_STAGE = re.compile(r"\$\{([^}]*)\}?")
_STAGE_OUT = re.compile(r"stages\.([A-Za-z0-9][A-Za-z0-9_-]*)\.(?:out|run)")


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A valid config. `data` is the resolved config in JSON types, `yaml` the same as text that can be run again.

    `warnings` are advice; `blockers` keep it from running on this machine or in this release.
    """

    job: Job
    data: Mapping[str, Any]
    yaml: str
    path: Path
    warnings: tuple[str, ...] = ()
    blockers: tuple[str, ...] = ()

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
    if isinstance(loaded.job, (PipelineJob, SuiteJob)):
        return _with_inner(loaded, root, plugins)
    return replace(loaded, blockers=(*loaded.blockers, *map(str, _unfilled(root, ()))))


def _load_one(
    path: Path, overrides: Sequence[str] | Mapping[str, Any], plugins: Plugins, overrides_from: str
) -> tuple[LoadedConfig, Node]:
    """The config at `path` without those that it names."""
    layers = read_layers(path)
    settings = override_nodes(overrides, overrides_from)
    view = SchemaView(JOBS[_job_name(layers, settings)], plugins.catalog)
    root = layers[0]
    for layer in layers[1:]:
        root = merge(root, layer, view.root, view)
    # a `type` first, for it replaces a component with all its options
    for key, value in sorted(settings, key=lambda setting: not setting[0].endswith(".type")):
        root = merge(root, nest(root, key, value), view.root, view)
    root = _rebase(Node(complete(root, view.root, view).value, layers[-1].place), path)
    job = _validate(root, view, plugins)
    data = job.model_dump(mode="json")
    return LoadedConfig(job, data, dump_yaml(data), path, *_findings(job, root)), root


def _rebase(node: Node, path: Path) -> Node:
    """`node` with the configs of stages and runs as absolute paths: they are relative to the file that says them."""
    entries = dict(node.value) if isinstance(node.value, dict) else {}
    stages, runs = entries.get("stages"), entries.get("runs")
    if stages is not None and isinstance(stages.value, list):
        entries["stages"] = Node([_absolute(stage, "config", path) for stage in stages.value], stages.place)
    if runs is not None and isinstance(runs.value, dict):
        for name in runs.value:
            entries["runs"] = _absolute(entries["runs"], name, path)
    return Node(entries, node.place)


def _absolute(node: Node, key: str, path: Path) -> Node:
    config = node.child(key)
    if not isinstance(node.value, dict) or config is None or not isinstance(config.value, str):
        return node
    folder = Path(config.place.source).parent if config.place.line else path.parent
    target = Path(os.path.abspath(folder / config.value)).as_posix()
    return Node({**node.value, key: Node(target, config.place)}, node.place)


def _job_name(layers: Sequence[Node], settings: Sequence[tuple[str, Node]]) -> str:
    said = [node for layer in layers if (node := layer.child("job"))] + [node for key, node in settings if key == "job"]
    if not said:
        raise ConfigError(f"{layers[-1].place}: job: missing; expected one of {', '.join(JOBS)}")
    name = said[-1].value
    if not isinstance(name, str) or name not in JOBS:
        raise ConfigError(f"{said[-1].place}: job: there is no job {name!r}{nearest(str(name), JOBS)}")
    return name


def _validate(root: Node, view: SchemaView, plugins: Plugins) -> Job:
    model = JOBS[str(root.plain()["job"])]
    try:
        job = model.model_validate_json(json.dumps(root.plain()), strict=True, context={"catalog": plugins.catalog})
    except ValidationError as error:
        problems = explain(error, root, view, plugins.broken)
    else:
        findings = check_job(job)
        problems = [root.problem(f.path, f.text) for f in findings if f.severity == "error"]
        if not problems:
            return job
    raise_problems(problems)
    raise AssertionError("a refused config without a problem")


def _findings(job: Job, root: Node) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(warnings, blockers) as texts with their places."""

    def say(path: KeyPath, text: str) -> str:
        return str(root.problem(path, text))

    warnings = [say(finding.path, finding.text) for finding in check_job(job)]
    warnings += [say(path, text) for path, text in hub_models(job)]
    blockers = [*unavailable(job), *missing_files(job)]
    resources = getattr(job, "resources", None)
    if resources is not None:
        blockers += unmet_resources(resources, os.environ)
    return tuple(warnings), tuple(say(path, text) for path, text in blockers)


def _unfilled(node: Node, path: KeyPath) -> Iterator[Problem]:
    """The values that name a stage's output, which only a pipeline can fill in."""
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            yield from _unfilled(child, (*path, key))
    elif isinstance(node.value, list):
        for i, child in enumerate(node.value):
            yield from _unfilled(child, (*path, i))
    elif isinstance(node.value, str) and STAGE_OUTPUT in node.value:
        yield Problem(node.place, path, f"{node.value} is filled in by a pipeline; run that instead")


def _with_inner(loaded: LoadedConfig, root: Node, plugins: Plugins) -> LoadedConfig:
    """`loaded` with the findings of the configs it names. Raises ConfigError with the problems of all of them."""
    problems: list[str] = []
    inner: list[LoadedConfig] = []
    for path, config, overrides in _inner_configs(loaded.job):
        place = root.place_of(path)
        written = _STAGE.findall(json.dumps(overrides, ensure_ascii=False))
        problems += [str(Problem(place, path, text)) for text in _bad_references(loaded.job, path, written)]
        try:
            found, _ = _load_one(_shown(Path(config)), overrides, plugins, f"{place} (overrides)")
        except ConfigError as error:
            problems.append(f"{place}: {dotted(path)}: its config is wrong:\n{error}")
            continue
        inner.append(found)
        written = [text for text in _STAGE.findall(json.dumps(found.data, ensure_ascii=False)) if "stages." in text]
        problems += [str(Problem(place, path, text)) for text in _bad_references(loaded.job, path, written)]
        if isinstance(loaded.job, PipelineJob) and isinstance(found.job, (PipelineJob, SuiteJob)):
            problems.append(f"{place}: {dotted(path)}: a stage cannot be a {found.job.job}")
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    warnings = [*loaded.warnings, *(text for found in inner for text in found.warnings)]
    blockers = [*loaded.blockers, *(text for found in inner for text in found.blockers)]
    return replace(loaded, warnings=tuple(dict.fromkeys(warnings)), blockers=tuple(dict.fromkeys(blockers)))


def _shown(path: Path) -> Path:
    """`path` as errors name it: relative to the working directory where it lies inside."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _inner_configs(job: Job) -> list[tuple[KeyPath, str, Mapping[str, Any]]]:
    if isinstance(job, PipelineJob):
        return [(("stages", i), stage.config, stage.overrides) for i, stage in enumerate(job.stages)]
    if isinstance(job, SuiteJob):
        return [(("runs", name), config, {}) for name, config in job.runs.items()]
    return []


def _bad_references(job: Job, path: KeyPath, written: Sequence[str]) -> list[str]:
    """What is wrong with what stands in the `${...}` of a stage: only an earlier stage's output or folder is known."""
    earlier = [stage.name for stage in job.stages[: int(path[1])]] if isinstance(job, PipelineJob) else []
    wrong = []
    for text in written:
        found = _STAGE_OUT.fullmatch(text)
        if found is None:
            wrong.append(f"${{{text}}} is not of the form ${{stages.NAME.out}} (its output) or .run (its folder)")
        elif found[1] not in earlier:
            wrong.append(f"${{{text}}}: no earlier stage is named {found[1]!r}{nearest(found[1], earlier)}")
    return wrong
