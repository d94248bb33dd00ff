"""The `pipeline` job: stages, each a run of its own inside the pipeline's folder.

    runs/NAME/config.yaml, manifest.json   the pipeline
              STAGE/                       the run folder of each stage (its run.dir and run.name are set here)
              logs/STAGE.log               what a stage printed that had a process of its own

`${stages.NAME.out}` in a stage's config or overrides is what an earlier stage returned (train and sft: the final
`policy/`, prepare: its data folder), `${stages.NAME.run}` its run folder. A stage whose `done` marker stands is not
run again; an unfinished one goes on from its last checkpoint (train, sft) or starts over. Before anything is touched,
what stands in the folder is compared with the stages.

Stages run in order in this process, so that torch is loaded once. With `at_once` those that do not need each other run
side by side, each in a process of its own, and only those that no other can run beside stay here.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path

from ampo_registry.errors import ConfigError, RunError

from ampo_core.config.jobs import PipelineJob
from ampo_core.config.load import LoadedConfig
from ampo_core.config.run_names import finished_output
from ampo_core.jobs.members import (
    Finished,
    arguments_of,
    check_current,
    check_unchanged,
    is_folder_of,
    load_member,
    open_folder,
)
from ampo_core.jobs.processes import Processes, environments
from ampo_core.jobs.side_by_side import not_finished, options_of, run_tasks
from ampo_core.jobs.stages import StageTask, plan_stages, recorded_threads, width_here
from ampo_core.jobs.table import run_job
from ampo_core.report.build import refresh_report
from ampo_core.run.changes import read_config
from ampo_core.run.environment import Environment
from ampo_core.run.folder import check_free
from ampo_core.run.lock import check_not_held, held
from ampo_core.run.progress import format_seconds, say


def run(job: PipelineJob, environment: Environment) -> Path:
    """Run the stages that are not finished; returns the pipeline's folder.

    Raises ConfigError, before anything is touched, if the folder is another run's or another pipeline's, or if a
    finished stage's config has changed since; RunError if a stage cannot start after others have run.
    """
    tasks = plan_stages(job, environment)
    check_folder(job, tasks, environment)
    environ = dict(os.environ)  # as it is before a stage in this process adds to it
    with held(job.run.folder):
        folder = open_folder(job, environment)
        finished, ran = Finished(), list[str]()
        try:
            for alone, group in groupby(tasks, key=lambda task: task.alone):
                if alone:
                    for task in group:
                        run_here(task, finished, ran, environment)
                else:
                    width = width_here(job.at_once, environ)
                    if width < job.at_once:
                        say(environment.console, f"at_once: {job.at_once}, but this machine shows {width} GPU(s)")
                    ran += run_beside(list(group), finished, environments(width, environ), environment)
            folder.finish(finished.out[tasks[-1].name])  # the pipeline's output is that of the last stage
        finally:  # one that fails or is interrupted has a report of what there is
            refresh_report(folder.path, partial(say, environment.console))
    return folder.path


def run_here(task: StageTask, finished: Finished, ran: list[str], environment: Environment) -> None:
    """Run a stage in this process, if its `done` marker does not stand. `ran` are those that have run before it."""
    if _note_finished(task, finished):
        say(environment.console, f"{task.title}: finished already")
        return
    started = time.monotonic()
    try:
        loaded, _ = load_member(task.member, finished, environment)
        loaded.require_ready()
        say(environment.console, f"{task.title} ({loaded.job.job})")
        out = run_stage(task.member.folder, loaded, environment)
    except ConfigError as error:
        if not ran:
            raise
        raise RunError(f"stage {task.name}, after {', '.join(ran)} had run:\n{error}") from error
    finished.out[task.name], finished.run[task.name] = out, task.member.folder
    ran.append(task.name)
    say(environment.console, f"{task.title}: done in {format_seconds(time.monotonic() - started)}")


def run_beside(
    tasks: Sequence[StageTask], finished: Finished, places: Sequence[Mapping[str, str]], environment: Environment
) -> list[str]:
    """Run stages side by side, each in a process with one of the environments `places`, but for those whose `done`
    marker stands; returns the names of those that have run. What they print is shown, with their names.

    Raises RunError if one has failed, after all have run that do not need it.
    """
    note, todo, failed = partial(say, environment.console), list[StageTask](), list[str]()
    for task in tasks:
        if _note_finished(task, finished):
            note(f"{task.title}: finished already")
        else:
            todo.append(task)
    if todo:
        names = ", ".join(task.name for task in todo)
        note(f"stages {names}: {len(places)} at a time, their output also in {todo[0].log.parent}")
        _give_memory_back()
    with Processes(places, options_of(environment), lambda name, line: note(f"{name}: {line}")) as processes:
        for _, failure in run_tasks(
            todo,
            processes,
            ready=lambda task: task.needs <= finished.out.keys(),
            arguments=lambda task: arguments_of(task.member, finished, environment),
            finished=lambda task: _note_finished(task, finished),
            note=note,
        ):
            failed += [failure] if failure is not None else []
    if failed:
        raise not_finished(failed, len(tasks))
    return [task.name for task in todo]


def _note_finished(task: StageTask, finished: Finished) -> bool:
    """Take in what a stage has left, if its `done` marker stands; True if it does."""
    out = finished_output(task.member.folder)
    if out is not None:
        finished.out[task.name], finished.run[task.name] = out, task.member.folder
    return out is not None


def check_folder(job: PipelineJob, tasks: Sequence[StageTask], environment: Environment) -> None:
    """Compare what stands in the pipeline's folder with `job` and its `tasks`; touches nothing.

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
    for task in tasks:
        member, folder = task.member, task.member.folder
        if _note_finished(task, finished):
            # How many threads it had, where its config leaves that open, is no matter once it is done.
            loaded, uses = load_member(replace(member, threads=None), finished, environment)
            machines = loaded.job.machines()
            if machines is not None and machines.threads is None:
                member = replace(member, threads=recorded_threads(member.folder))
            if member.threads is not None:
                loaded, _ = load_member(member, finished, environment)
            check_current("stage", member, uses & pending)
            check_unchanged("stage", member, loaded)
            continue
        finished.out[task.name], finished.run[task.name] = folder, folder
        pending.add(task.name)
        if task.name not in stored or not (folder / "config.yaml").exists():
            check_free(folder)


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


def run_stage(folder: Path, loaded: LoadedConfig, environment: Environment) -> Path:
    """Run one stage, or let it go on where it stood; returns its output."""
    out = run_job(loaded.job, replace(environment, config=loaded.data, yaml=loaded.yaml, config_path=loaded.path))
    # A model of the last stage may hang in a reference cycle; the next one needs its memory.
    gc.collect()
    return out if out is not None else folder


def _give_memory_back() -> None:
    """Let other processes have the GPU memory of stages that have run in this one."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
