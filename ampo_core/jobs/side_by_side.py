"""Runs members of a pipeline or a suite side by side, whatever needs nothing that is missing first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from ampo_registry.errors import ConfigError, RunError

from ampo_core.jobs.processes import Ended, Processes
from ampo_core.run.environment import Environment
from ampo_core.run.interrupt import INTERRUPTED
from ampo_core.run.manifest import FROM_A_FILE
from ampo_core.run.progress import format_seconds

POLL_S = 0.2


class Task(Protocol):
    """A member that runs in a process of its own."""

    @property
    def name(self) -> str:
        """What its process is called; no two are called alike."""

    @property
    def title(self) -> str:
        """What the screen calls it."""

    @property
    def log(self) -> Path:
        """Where its output goes."""


T = TypeVar("T", bound=Task)


def run_tasks(
    todo: Sequence[T],
    processes: Processes,
    *,
    ready: Callable[[T], bool],
    arguments: Callable[[T], Sequence[str]],
    finished: Callable[[T], bool],
    note: Callable[[str], None],
) -> Iterator[tuple[T, str | None]]:
    """Run `todo`; gives each task when it has ended, with a line that says how it failed, None if it did not. What
    needs a failed one is given last, and was not started.

    A task starts with `arguments` of ampo-run once it is `ready`, in the order of `todo`; `finished` takes in what it
    has left, and is false if that is not whole. `note` is told how each ended. Raises KeyboardInterrupt if one was.
    """
    waiting, running = list(todo), dict[str, tuple[T, float]]()
    while True:
        while processes.free and (task := next(filter(ready, waiting), None)) is not None:
            waiting.remove(task)
            try:
                given = arguments(task)
            except ConfigError as error:
                yield task, f"{task.title}: {error}"
                continue
            running[task.name] = task, time.monotonic()
            processes.start(task.name, given, task.log)
        if processes.idle:
            break
        time.sleep(POLL_S)
        for ended in processes.ended():
            task, started = running.pop(ended.key)
            took = format_seconds(time.monotonic() - started)
            if ended.code == INTERRUPTED:
                raise KeyboardInterrupt
            if ended.code == 0 and finished(task):
                note(f"{task.title}: done in {took}")
                yield task, None
            else:
                _say_failed(task.title, ended, took, note, shown=processes.told)
                yield task, f"{task.title}: exit code {ended.code}, see {ended.log}"
    for task in waiting:
        yield task, f"{task.title}: not started, it needs what failed"


def _say_failed(title: str, ended: Ended, took: str, note: Callable[[str], None], *, shown: bool) -> None:
    failed = f"{title}: failed with exit code {ended.code} after {took}"
    if shown:
        note(failed)
    else:
        note(f"{failed}; the end of {ended.log}:")
        note(ended.last_words())


def not_finished(failed: Sequence[str], total: int) -> RunError:
    """What is raised at the end for the tasks that failed, a line each."""
    text = f"{len(failed)} of {total} did not finish, and what needs them did not run:"
    return RunError("\n".join([text, *failed, "The same command tries them again"]))


def options_of(environment: Environment) -> list[str]:
    """What this process was given on its command line and its members need too."""
    options = ["--trust-remote-code"] if environment.trust_remote_code else []
    options += ["--allow-changes"] if environment.allow_changes else []
    files = [name for name, version in environment.plugins.distributions.items() if version == FROM_A_FILE]
    return [*options, *(part for name in files for part in ("--plugin", name))]
