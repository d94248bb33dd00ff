"""The `suite` job: configs × seeds, evaluated alike and compared in tables.

Each is a process of its own, `parallel` of them side by side. What is finished is not run again, what is unfinished
goes on, and what fails keeps only those from running that need it. Several suites may share a folder: what is in none
of the tables of this one is left alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from ampo_registry.errors import ConfigError, RunError

from ampo_core.config.suite_job import SuiteJob
from ampo_core.jobs.members import check_current, check_unchanged, is_folder_of, open_folder
from ampo_core.jobs.suite.plan import Plan, Task, command_line, load_task, plan_suite
from ampo_core.jobs.suite.processes import Ended, Processes, environments
from ampo_core.jobs.suite.render import write_tables
from ampo_core.report.build import refresh_report
from ampo_core.report.sources import collect
from ampo_core.report.watch import warnings_of
from ampo_core.run.environment import Environment
from ampo_core.run.folder import check_free
from ampo_core.run.interrupt import INTERRUPTED
from ampo_core.run.lock import check_not_held, held
from ampo_core.run.manifest import FROM_A_FILE
from ampo_core.run.progress import Progress, format_seconds, say

POLL_S = 0.2


def run(job: SuiteJob, environment: Environment) -> Path:
    """Run what is not finished, write the tables; returns the suite's folder.

    Raises ConfigError, before anything is touched, if the folder is another job's or what is finished in it was made
    with another config; RunError, after all else has run, if something failed.
    """
    plan = plan_suite(job, environment)
    todo = check_folder(plan, environment)
    places = environments(job.parallel, os.environ)
    with held(job.run.folder):
        folder = open_folder(job, environment)
        failed = run_tasks(plan, todo, places, environment)
        write_tables(plan, environment.console)
        refresh_report(plan.root, partial(say, environment.console))
        if failed:
            raise RunError(
                f"{len(failed)} of {len(plan.tasks)} did not finish, and what needs them did not run:\n"
                + "\n".join(failed)
                + "\nThe same command tries them again"
            )
        folder.finish()
    return folder.path


def check_folder(plan: Plan, environment: Environment) -> list[Task]:
    """Compare what stands in the suite's folder with `plan`, touching nothing; returns the tasks that are left.

    Raises ConfigError if the folder holds something else, or a finished member that was made with another config or
    from an earlier run of one that is to run again.
    """
    if not is_folder_of(plan.root, "suite"):
        check_free(plan.root)
        return list(plan.tasks)
    check_not_held(plan.root)
    todo: list[Task] = []
    for task in plan.tasks:
        if not plan.note_finished(task):
            todo.append(task)
            continue
        again = {other.label for other in todo if other.seed == task.seed} & task.made_from
        check_current(task.kind, task.member, frozenset(again))
        check_unchanged(task.kind, task.member, load_task(plan, task, environment))
    return todo


def run_tasks(plan: Plan, todo: list[Task], places: Sequence[Mapping[str, str]], environment: Environment) -> list[str]:
    """Run `todo`, whatever needs nothing that is missing first; returns a line for each task that failed.

    `places` are the environments of the processes that may run side by side.
    """
    done = len(plan.tasks) - len(todo)
    waiting = {task.title: task for task in todo}
    started: dict[str, float] = {}
    failed: list[str] = []
    with (
        Progress(environment.console, "suite", len(plan.tasks), line_every=10**9, line_seconds=600) as progress,
        Processes(places, _options(environment)) as processes,
    ):
        progress.note(f"{len(plan.tasks)} jobs, {done} of them finished already")
        while True:
            while processes.free and (task := _next(plan, waiting)) is not None:
                log = plan.root / "logs" / f"seed-{task.seed}" / f"{task.label.replace('/', '.')}.log"
                try:
                    arguments = command_line(plan, waiting.pop(task.title), environment)
                except ConfigError as error:
                    failed.append(f"{task.title}: {error}")
                    continue
                started[task.title] = time.monotonic()
                processes.start(task.title, arguments, log)
            if processes.idle:
                break
            time.sleep(POLL_S)
            for ended in processes.ended():
                done += 1
                took = format_seconds(time.monotonic() - started[ended.key])
                failed += _outcome(plan, ended, took, progress)
                progress.step(done, {})
    return [*failed, *(f"{title}: not started, it needs what failed" for title in waiting)]


def _next(plan: Plan, waiting: dict[str, Task]) -> Task | None:
    """The first waiting task whose needs are finished."""
    return next((task for task in waiting.values() if task.needs <= plan.finished[task.seed].out.keys()), None)


def _outcome(plan: Plan, ended: Ended, took: str, progress: Progress) -> list[str]:
    """Say how a task ended; a line if it failed."""
    task = next(task for task in plan.tasks if task.title == ended.key)
    if ended.code == INTERRUPTED:
        raise KeyboardInterrupt
    if ended.code == 0 and plan.note_finished(task):
        progress.note(f"{task.title}: done in {took}")
        for line in _warnings(task.member.folder):
            progress.note(f"{task.title}: {line}")
        return []
    progress.note(f"{task.title}: failed with exit code {ended.code} after {took}; the end of {ended.log}:")
    progress.note(ended.last_words())
    return [f"{task.title}: exit code {ended.code}, see {ended.log}"]


def _warnings(folder: Path) -> list[str]:
    """What shows that a member learnt nothing, for its own screen is a log."""
    try:
        return [f"warning: {found}" for _, found in warnings_of(r for e in collect([folder]).entries for r in e.runs)]
    except ConfigError as error:
        return [str(error)]


def _options(environment: Environment) -> list[str]:
    """What this process was given on its command line and its members need too."""
    options = ["--trust-remote-code"] if environment.trust_remote_code else []
    options += ["--allow-changes"] if environment.allow_changes else []
    files = [name for name, version in environment.plugins.distributions.items() if version == FROM_A_FILE]
    return [*options, *(part for name in files for part in ("--plugin", name))]
