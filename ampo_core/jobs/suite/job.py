"""The `suite` job: configs × seeds, evaluated alike and compared in tables.

Each is a process of its own, `parallel` of them side by side. What is finished is not run again, what is unfinished
goes on, and what fails keeps only those from running that need it. Several suites may share a folder: what is in none
of the tables of this one is left alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from ampo_registry.errors import ConfigError

from ampo_core.config.suite_job import SuiteJob
from ampo_core.jobs.members import check_current, check_unchanged, is_folder_of, open_folder
from ampo_core.jobs.processes import Processes, environments
from ampo_core.jobs.side_by_side import not_finished, options_of, run_tasks
from ampo_core.jobs.suite.plan import Plan, Task, command_line, load_task, plan_suite
from ampo_core.jobs.suite.render import write_tables
from ampo_core.report.build import refresh_report
from ampo_core.report.sources import collect
from ampo_core.report.watch import warnings_of
from ampo_core.run.environment import Environment
from ampo_core.run.folder import check_free
from ampo_core.run.lock import check_not_held, held
from ampo_core.run.progress import Progress, say


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
        failed = run_missing(plan, todo, places, environment)
        write_tables(plan, environment.console)
        refresh_report(plan.root, partial(say, environment.console))
        if failed:
            raise not_finished(failed, len(plan.tasks))
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


def run_missing(
    plan: Plan, todo: Sequence[Task], places: Sequence[Mapping[str, str]], environment: Environment
) -> list[str]:
    """Run `todo` in processes with the environments `places`; returns a line for each task that failed."""
    done, failed = len(plan.tasks) - len(todo), []
    with (
        Progress(environment.console, "suite", len(plan.tasks), line_every=10**9, line_seconds=600) as progress,
        Processes(places, options_of(environment)) as processes,
    ):
        progress.note(f"{len(plan.tasks)} jobs, {done} of them finished already")
        for task, failure in run_tasks(
            todo,
            processes,
            ready=lambda task: task.needs <= plan.finished[task.seed].out.keys(),
            arguments=lambda task: command_line(plan, task, environment),
            finished=plan.note_finished,
            note=progress.note,
        ):
            if failure is not None:
                failed.append(failure)
                continue
            for line in _warnings(task.member.folder):
                progress.note(f"{task.title}: {line}")
            done += 1
            progress.step(done, {})
    return failed


def _warnings(folder: Path) -> list[str]:
    """What shows that a member learnt nothing, for its own screen is a log."""
    try:
        return [f"warning: {found}" for _, found in warnings_of(r for e in collect([folder]).entries for r in e.runs)]
    except ConfigError as error:
        return [str(error)]
