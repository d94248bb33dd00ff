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
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from ampo_registry.errors import ConfigError, RunError

from ampo_core.config.jobs import PipelineJob
from ampo_core.config.load import LoadedConfig
from ampo_core.config.pipeline_job import Stage
from ampo_core.config.run_names import finished_output
from ampo_core.jobs.members import (
    Finished,
    Member,
    check_current,
    check_unchanged,
    is_folder_of,
    load_member,
    open_folder,
)
from ampo_core.jobs.table import run_job
from ampo_core.report.build import refresh_report
from ampo_core.run.changes import read_config
from ampo_core.run.environment import Environment
from ampo_core.run.folder import RunFolder, check_free
from ampo_core.run.lock import check_not_held, held
from ampo_core.run.progress import format_seconds, say


def run(job: PipelineJob, environment: Environment) -> Path:
    """Run the stages that are not finished; returns the pipeline's folder.

    Raises ConfigError, before anything is touched, if the folder is another run's or another pipeline's, or if a
    finished stage's config has changed since; RunError if a stage cannot start after others have run.
    """
    check_folder(job, environment)
    with held(job.run.folder):
        return run_stages(job, open_folder(job, environment), environment)


def run_stages(job: PipelineJob, folder: RunFolder, environment: Environment) -> Path:
    """Run the stages whose `done` marker does not stand, one after the other; returns the pipeline's folder.

    What its own marker names as the output is that of the last stage.
    """
    finished, out = Finished(), folder.path
    ran: list[str] = []
    for position, stage in enumerate(job.stages, start=1):
        started = time.monotonic()
        title = f"stage {position}/{len(job.stages)} {stage.name}"
        done = finished_output(folder.path / stage.name)
        if done is not None:
            out = done
            say(environment.console, f"{title}: finished already")
        else:
            try:
                loaded, _ = load_member(_member(stage, folder.path, environment), finished, environment)
                loaded.require_ready()
                say(environment.console, f"{title} ({loaded.job.job})")
                out = run_stage(folder.path / stage.name, loaded, environment)
            except ConfigError as error:
                if not ran:
                    raise
                raise RunError(f"stage {stage.name}, after {', '.join(ran)} had run:\n{error}") from error
            ran.append(stage.name)
            say(environment.console, f"{title}: done in {format_seconds(time.monotonic() - started)}")
        finished.out[stage.name], finished.run[stage.name] = out, folder.path / stage.name
    folder.finish(out)
    refresh_report(folder.path, partial(say, environment.console))
    return folder.path


def check_folder(job: PipelineJob, environment: Environment) -> None:
    """Compare what stands in the pipeline's folder with `job`; touches nothing.

    Raises ConfigError if the folder holds something else, a stage of another pipeline, or a finished stage that was
    made with another config or from an earlier run of a stage that is to run again.
    """
    root = job.run.folder
    if not is_folder_of(root, "pipeline"):
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
            member = _member(stage, root, environment)
            loaded, uses = load_member(member, finished, environment)
            check_current("stage", member, uses & pending)
            check_unchanged("stage", member, loaded)


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
    stages = read_config(root).get("stages")
    try:
        return {str(stage["name"]): str(stage["config"]) for stage in stages or ()}
    except (TypeError, KeyError):
        raise ConfigError(
            f"{root / 'config.yaml'}: its stages cannot be read; was it edited? Choose another run.name"
        ) from None


def _member(stage: Stage, root: Path, environment: Environment) -> Member:
    return Member(
        name=stage.name,
        config=environment.config_path.parent / stage.config,
        overrides=stage.overrides,
        place=f"{environment.config_path}: stages.{stage.name}",
        root=root,
        seed=int(environment.config["run"]["seed"]),
    )


def run_stage(folder: Path, loaded: LoadedConfig, environment: Environment) -> Path:
    """Run one stage, or let it go on where it stood; returns its output."""
    out = run_job(loaded.job, replace(environment, config=loaded.data, yaml=loaded.yaml, config_path=loaded.path))
    # A model of the last stage may hang in a reference cycle; the next one needs its memory.
    gc.collect()
    return out if out is not None else folder
