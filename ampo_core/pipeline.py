"""The `pipeline` job: stages one after the other, each a run of its own inside the pipeline's folder.

    runs/NAME/config.yaml, manifest.json   the pipeline
              STAGE/                       the run folder of each stage (its run.dir and run.name are set here)

`${stages.NAME.out}` in a stage's config or overrides is what an earlier stage returned (train and sft: the final
`policy/`, prepare: its data folder), `${stages.NAME.run}` its run folder. A stage whose `done` marker stands is not
run again; an unfinished one goes on from its last checkpoint (train, sft) or starts over. Before anything is touched,
what stands in the folder is compared with the stages. Stages share this process, so that torch is loaded once.
"""

from __future__ import annotations

import gc
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError, RunError

from ampo_core.changes import config_changes, listed
from ampo_core.config.jobs import PipelineJob, Stage
from ampo_core.config.load import LoadedConfig, load_config
from ampo_core.config.nodes import nearest
from ampo_core.config.yaml_source import parse_yaml
from ampo_core.environment import Environment
from ampo_core.files import write_atomically, write_json
from ampo_core.folder_lock import check_not_held, held
from ampo_core.jobs import run_job
from ampo_core.manifest import build_manifest
from ampo_core.progress import format_seconds
from ampo_core.runfolder import RunFolder, check_free, finished_output

REFERENCE = re.compile(r"\$\{stages\.([A-Za-z0-9][A-Za-z0-9_-]*)\.(out|run)\}")


@dataclass(slots=True)
class Finished:
    """What is known of the stages so far: name -> output and run folder."""

    out: dict[str, Path] = field(default_factory=dict)
    run: dict[str, Path] = field(default_factory=dict)

    def resolve(self, text: str, place: str) -> str:
        """`text` with its references replaced. Raises ConfigError for a stage that is not an earlier one."""

        def path_of(match: re.Match[str]) -> str:
            name, what = match.groups()
            if name not in self.out:
                raise ConfigError(f"{place}: {match[0]}: no earlier stage is named {name!r}{nearest(name, self.out)}")
            return str((self.out if what == "out" else self.run)[name])

        return REFERENCE.sub(path_of, text)


def run(job: PipelineJob, environment: Environment) -> Path:
    """Run the stages that are not finished; returns the pipeline's folder.

    Raises ConfigError, before anything is touched, if the folder is another run's or another pipeline's, or if a
    finished stage's config has changed since; RunError if a stage cannot start after others have run.
    """
    check_folder(job, environment)
    folder = open_folder(job, environment)
    with held(folder.path):
        return run_stages(job, folder, environment)


def run_stages(job: PipelineJob, folder: RunFolder, environment: Environment) -> Path:
    """Run the stages whose `done` marker does not stand, one after the other; returns the pipeline's folder."""
    finished = Finished()
    ran: list[str] = []
    for position, stage in enumerate(job.stages, start=1):
        started = time.monotonic()
        title = f"stage {position}/{len(job.stages)} {stage.name}"
        out = finished_output(folder.path / stage.name)
        if out is not None:
            _say(environment, f"{title}: finished already")
        else:
            try:
                loaded, _ = load_stage(stage, folder.path, finished, environment)
                loaded.require_ready()
                _say(environment, f"{title} ({loaded.job.job})")
                out = run_stage(folder.path / stage.name, loaded, environment)
            except ConfigError as error:
                if not ran:
                    raise
                raise RunError(f"stage {stage.name}, after {', '.join(ran)} had run:\n{error}") from error
            ran.append(stage.name)
            _say(environment, f"{title}: done in {format_seconds(time.monotonic() - started)}")
        finished.out[stage.name], finished.run[stage.name] = out, folder.path / stage.name
    return folder.finish()


def check_folder(job: PipelineJob, environment: Environment) -> None:
    """Compare what stands in the pipeline's folder with `job`; touches nothing.

    Raises ConfigError if the folder holds something else, a stage of another pipeline, or a finished stage that was
    made with another config or from an earlier run of a stage that is to run again.
    """
    root = Path(job.run.dir) / job.run.name
    if not _is_pipeline(root):
        check_free(root)
        return
    check_not_held(root)
    stored = _stored_stages(root)
    _check_stages(job, root, stored)
    finished, pending = Finished(), set[str]()
    for stage in job.stages:
        folder = root / stage.name
        out = finished_output(folder)
        finished.out[stage.name], finished.run[stage.name] = out or folder, folder
        if out is None:
            pending.add(stage.name)
            if stage.name not in stored or not (folder / "config.yaml").exists():
                check_free(folder)
        else:
            loaded, uses = load_stage(stage, root, finished, environment)
            check_current(stage.name, folder, uses & pending)
            check_unchanged(stage.name, folder, loaded)


def _check_stages(job: PipelineJob, root: Path, stored: Mapping[str, str]) -> None:
    """Raise ConfigError if a stage that has left something in `root` is not one of `job`'s."""
    configs = {stage.name: stage.config for stage in job.stages}
    for name, config in stored.items():
        if not (root / name).exists():
            continue
        advice = f"choose another run.name or run.dir, or remove {root}"
        if name not in configs:
            raise ConfigError(
                f"{root} holds another pipeline: it has a stage {name}, which is not one of these; {advice}"
            )
        if configs[name] != config and finished_output(root / name) is None:
            raise ConfigError(
                f"{root} holds another pipeline: its unfinished stage {name} runs {config}, here it runs "
                f"{configs[name]}; {advice}"
            )


def _stored_stages(root: Path) -> dict[str, str]:
    """name -> config file of the stages that the pipeline in `root` was started with."""
    path = root / "config.yaml"
    stored, _ = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    stages = stored.plain().get("stages") if stored is not None else None
    try:
        return {str(stage["name"]): str(stage["config"]) for stage in stages or ()}
    except (TypeError, KeyError):
        raise ConfigError(f"{path}: its stages cannot be read; was it edited? Choose another run.name") from None


def open_folder(job: PipelineJob, environment: Environment) -> RunFolder:
    """The pipeline's folder, made or continued; `check_folder` comes first."""
    manifest = build_manifest(job="pipeline", seed=job.run.seed, plugins=environment.plugins.distributions)
    path = Path(job.run.dir) / job.run.name
    if not _is_pipeline(path):
        return RunFolder.create(job.run, environment.yaml, manifest)
    (path / "done").unlink(missing_ok=True)
    write_atomically(path / "config.yaml", environment.yaml)
    write_json(path / "manifest.json", manifest)
    return RunFolder(path)


def _is_pipeline(path: Path) -> bool:
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("job") == "pipeline" and (path / "config.yaml").exists()


def load_stage(
    stage: Stage, root: Path, finished: Finished, environment: Environment
) -> tuple[LoadedConfig, frozenset[str]]:
    """The stage's resolved config, inside `root` and without references, and the stages that it refers to."""
    place = f"{environment.config_path}: stages.{stage.name}"
    path = environment.config_path.parent / stage.config
    uses = set(_references(stage.overrides))
    overrides = {key: _replaced(value, finished, f"{place}.overrides.{key}") for key, value in stage.overrides.items()}
    seed = environment.config["run"]["seed"]
    overrides = {"run.seed": seed, **overrides, "run.dir": str(root), "run.name": stage.name}
    loaded = load_config(path, overrides, environment.plugins, overrides_from=f"{place} (overrides)")
    written = {key: text for key, text in _leaves(loaded.data) if REFERENCE.search(text)}
    if written:
        uses |= set(_references(written))
        overrides |= {key: finished.resolve(text, f"{path}: {key}") for key, text in written.items()}
        loaded = load_config(path, overrides, environment.plugins, overrides_from=f"{place} (overrides)")
    return loaded, frozenset(uses)


def run_stage(folder: Path, loaded: LoadedConfig, environment: Environment) -> Path:
    """Run one stage, or let it go on where it stood; returns its output."""
    out = run_job(loaded.job, replace(environment, config=loaded.data, yaml=loaded.yaml, config_path=loaded.path))
    # A model of the last stage may hang in a reference cycle; the next one needs its memory.
    gc.collect()
    return out if out is not None else folder


def check_unchanged(name: str, folder: Path, loaded: LoadedConfig) -> None:
    """Raise ConfigError if the finished run in `folder` had another config than `loaded`, with the differences."""
    changes = config_changes(folder, loaded.data)
    if changes:
        raise ConfigError(
            f"stage {name} is finished in {folder}, and its config has changed since:\n{listed(changes)}\n"
            f"Undo the change, choose another run.name, or remove {folder} to run the stage again"
        )


def check_current(name: str, folder: Path, pending: frozenset[str]) -> None:
    """Raise ConfigError if a finished stage was made from stages that are to run again (`pending`)."""
    if pending:
        raise ConfigError(
            f"stage {name} in {folder} was made from an earlier run of {', '.join(sorted(pending))}, which is to run "
            f"again; remove {folder} to run it again too"
        )


def _leaves(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, text) of every text in a tree."""
    if isinstance(value, str):
        yield key, value
    items: Sequence[tuple[object, object]] = ()
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, (list, tuple)):
        items = list(enumerate(value))
    for name, child in items:
        yield from _leaves(child, f"{key}.{name}" if key else str(name))


def _references(value: object) -> set[str]:
    return {match[1] for _, text in _leaves(value) for match in REFERENCE.finditer(text)}


def _replaced(value: Any, finished: Finished, place: str) -> Any:
    if isinstance(value, str):
        return finished.resolve(value, place)
    if isinstance(value, Mapping):
        return {key: _replaced(child, finished, place) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replaced(child, finished, place) for child in value]
    return value


def _say(environment: Environment, text: str) -> None:
    environment.console.print(text, markup=False, highlight=False, soft_wrap=True)
