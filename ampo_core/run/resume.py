"""What becomes of a run whose folder is there already: it is finished, goes on, starts over, or is refused.

The newest whole checkpoint is where a run goes on from. A run that would not be the same one any more (its config,
versions, plugins, data, questions, models or teachers differ) is refused with the list of differences, unless they are
allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ampo_registry.errors import ConfigError
from ampo_registry.text import a

from ampo_core.config.jobs import Job, PoolJob, SftJob, TrainJob
from ampo_core.config.run_names import finished_output, step_of
from ampo_core.run.changes import Change, config_changes, listed, manifest_changes, of_older_release, read_manifest
from ampo_core.run.checkpoint_store import CheckpointStore, read_state
from ampo_core.run.environment import Environment
from ampo_core.run.folder import RunFolder, check_free, discard_unfinished
from ampo_core.run.lock import check_not_held, held
from ampo_core.run.progress import say

State = Literal["new", "unfinished", "finished"]

LAID_OUT = ("deepspeed", "model.dtype", "model.lora")
"""Keys that decide how the learner's state is laid out: it cannot be loaded under other ones."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """How a train or sft run begins.

    `resume_step` is None in a new folder, 0 where an unfinished run without a checkpoint starts over, else the step of
    `checkpoint`, after which it goes on. `notes` say so.
    """

    path: Path
    manifest: Mapping[str, Any]
    resume_step: int | None = None
    checkpoint: Path | None = None
    notes: tuple[str, ...] = ()


def look(job: Job, environment: Environment) -> State:
    """What stands in the job's folder. Reads it and imports nothing heavy.

    Raises ConfigError if that is something else than this job's run, a run of another config, or one that another
    process is at.
    """
    path = job.run.folder
    if not (path / "config.yaml").exists():
        check_free(path)
        return "new"
    check_not_held(path)
    finished = finished_output(path) is not None
    found = "a finished run" if finished else "an unfinished run"
    try:
        kind = read_manifest(path).get("job")
    except ConfigError as error:
        raise ConfigError(f"{path} holds {found}: {error}") from error
    if kind != job.job:
        raise ConfigError(
            f"{path} holds {found} of {a(str(kind))} job, and this is {a(job.job)} job: choose another run.name or "
            "run.dir"
        )
    changes = config_changes(path, environment.config)
    if changes and not environment.allow_changes:
        raise ConfigError(refusal(f"{path} holds {found}", changes))
    if changes and finished and not job.goes_on_changed:
        raise ConfigError(
            f"{path} holds {found}, and a finished {kind} job cannot go on; choose another run.name, or remove the "
            f"folder to run it again. Its config has changed since:\n{listed(changes)}"
        )
    return "finished" if finished and not changes else "unfinished"


def start_over(path: Path, environment: Environment) -> None:
    """Clear an unfinished run of a kind that cannot go on away, and say so. `look` comes first."""
    if finished_output(path) is None and discard_unfinished(path):
        say(environment.console, f"{path}: unfinished, starts over")


def open_again(
    job: PoolJob, environment: Environment, manifest: Mapping[str, Any], stack: ExitStack
) -> tuple[RunFolder, tuple[str, ...]]:
    """The folder of a job that goes on by itself from what it has written, new or again; and what to say of it. It is
    locked until `stack` closes.

    Raises ConfigError if what is there is something else than this job's run, unless the changes are allowed.
    """
    path = job.run.folder
    state = look(job, environment)
    stack.enter_context(held(path))
    if state == "new":
        return RunFolder.create(job.run, environment.yaml, manifest), ()
    changes = [*config_changes(path, environment.config), *manifest_changes(path, manifest)]
    if changes and not environment.allow_changes:
        raise ConfigError(refusal(f"{path} holds an unfinished run", changes))
    notes = (f"{path}: goes on with what is there", *of_older_release(path, manifest), *allowed(changes))
    return RunFolder.reopen(path, environment.yaml, manifest, environment.config, 0), notes


def begin(
    job: TrainJob | SftJob,
    environment: Environment,
    manifest: Callable[[], Mapping[str, Any]],
    *,
    steps: int,
    world_size: int,
) -> Beginning:
    """How the run of `job` begins, decided before any model is loaded; writes nothing.

    `steps` is how many it has in all. Raises ConfigError if what is in its folder cannot become this run.
    """
    path = job.run.folder
    if look(job, environment) == "new":
        return Beginning(path, manifest())
    now = manifest()
    checkpoint = CheckpointStore(path / "checkpoints", job.checkpoint).newest()
    changes = config_changes(path, environment.config)
    if checkpoint is None:
        older = of_older_release(path, now)
        notes = [f"{path} has no checkpoint yet: the run starts over", *older, *allowed(changes)]
        return Beginning(path, now, 0, None, tuple(notes))
    changes += manifest_changes(path, now)
    if changes and not environment.allow_changes:
        raise ConfigError(refusal(f"{path} holds an unfinished run", changes))
    _check_fits(path, checkpoint, changes, steps, world_size)
    step = step_of(checkpoint)
    notes = [f"goes on after step {step} of {steps}", *of_older_release(path, now), *allowed(changes)]
    return Beginning(path, now, step, checkpoint, tuple(notes))


def check_still(beginning: Beginning, store: CheckpointStore) -> None:
    """Raise ConfigError if another process has gone on with the run since `beginning` was decided; the lock is held."""
    if store.newest() != beginning.checkpoint:
        raise ConfigError(
            f"{beginning.path}: another process has gone on with this run meanwhile; run the same command again"
        )


def _check_fits(path: Path, checkpoint: Path, changes: Sequence[Change], steps: int, world_size: int) -> None:
    """Raise ConfigError for what not even --allow-changes can do."""
    fresh = f"start a new run from model.path: {checkpoint / 'policy'}"
    before = read_state(checkpoint)["world_size"]
    if before != world_size:
        raise ConfigError(
            f"{checkpoint} was written by {before} ranks and this run has {world_size}; a learner's state can only be "
            f"read by as many: use resources that give {before}, or {fresh}"
        )
    fixed = [change for change in changes if change[0].startswith(LAID_OUT)]
    if fixed:
        raise ConfigError(f"{path}: these keys cannot change within a run:\n{listed(fixed)}\nUndo that, or {fresh}")
    step, finished = step_of(checkpoint), finished_output(path) is not None
    if step > steps or (finished and step == steps):
        raise ConfigError(
            f"{path} has come to step {step} and is asked for {steps} steps: nothing is left for the changes to act "
            f"on. Ask for more steps, or {fresh}"
        )


def refusal(what: str, changes: Sequence[Change]) -> str:
    """Why `what` stands in the folder is not gone on with, and what to do."""
    return (
        f"{what}, and these have changed since it began:\n{listed(changes)}\n"
        "Undo the changes, choose another run.name, or allow them with --allow-changes"
    )


def allowed(changes: Sequence[Change]) -> list[str]:
    """What is said of changes that were allowed."""
    return [f"changed, as allowed:\n{listed(changes)}"] if changes else []
