"""What a suite has to run: its stages, runs and evaluations at every seed, and what each of them waits for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ampo_core.config.load import LoadedConfig, load_config
from ampo_core.config.references import THIS, names_in
from ampo_core.config.run_names import finished_output
from ampo_core.config.suite_job import SuiteJob
from ampo_core.jobs.members import Finished, Member, arguments_of, load_member, settings_of
from ampo_core.run.environment import Environment

EVALUATIONS = "evaluations"


@dataclass(frozen=True, slots=True)
class Task:
    """A job of a suite at one seed. `needs` are the labels of what must be done before, at the same seed: all stages,
    and `made_from`, what it refers to.

    `evaluated` is the run whose model an evaluation samples, None for stages and runs.
    """

    kind: Literal["stage", "run", "evaluation"]
    label: str
    member: Member
    needs: frozenset[str]
    made_from: frozenset[str]
    logs: Path
    evaluated: str | None = None

    @property
    def seed(self) -> int:
        """The seed that it runs with."""
        return self.member.seed

    @property
    def name(self) -> str:
        """What its process is called."""
        return f"seed-{self.seed}/{self.label}"

    @property
    def title(self) -> str:
        """What the screen calls it."""
        return f"seed {self.seed}, {self.label}"

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.logs / f"seed-{self.seed}" / f"{self.label.replace('/', '.')}.log"


@dataclass(slots=True)
class Plan:
    """All tasks in the order in which they should start, and what is finished at each seed."""

    job: SuiteJob
    root: Path
    tasks: list[Task]
    finished: dict[int, Finished] = field(default_factory=dict)

    def note_finished(self, task: Task) -> bool:
        """Take in what `task` has left, if its `done` marker stands; True if it does."""
        out = finished_output(task.member.folder)
        if out is not None and task.kind != "evaluation":
            known = self.finished[task.seed]
            known.out[task.label], known.run[task.label] = out, task.member.folder
        return out is not None

    def known_to(self, task: Task) -> Finished:
        """What `task` may refer to; call it when all that it needs is done."""
        known = self.finished[task.seed]
        found = Finished(dict(known.out), dict(known.run))
        if task.evaluated is not None:
            model = self.model_of(task.evaluated, task.seed)
            found.out[THIS], found.run[THIS] = model, known.run.get(task.evaluated, model)
        return found

    def model_of(self, run: str, seed: int) -> Path:
        """The model of `run`: what it trained, or the one that it names."""
        named = self.job.members()[run].model
        known = self.finished[seed]
        return known.out[run] if named is None else Path(known.resolve(named, f"runs.{run}.model"))


def plan_suite(job: SuiteJob, environment: Environment) -> Plan:
    """The tasks of the tables that are asked for."""
    root = job.run.folder
    runs = needed_runs(job, environment)
    tasks = [task for seed in job.seeds for task in _tasks_of(job, seed, runs, root, environment)]
    return Plan(job, root, tasks, {seed: Finished() for seed in job.seeds})


def needed_runs(job: SuiteJob, environment: Environment) -> dict[str, frozenset[str]]:
    """run -> stages and other runs that it refers to, for those in the tables and those that they need, in order."""
    uses = {
        name: _uses(run.config, run.overrides, environment) if run.config is not None else names_in(run.model)
        for name, run in job.members().items()
    }
    return {name: frozenset(uses[name]) for name in job.needed_runs(uses)}


def _uses(config: str, overrides: Mapping[str, Any], environment: Environment) -> set[str]:
    """What a config refers to; a pipeline's references are to its own stages, but for those in `overrides`."""
    written = load_config(config, overrides, environment.plugins)
    return names_in(overrides) | (names_in(written.data) if not written.job.made_of_others else set())


def _tasks_of(
    job: SuiteJob, seed: int, runs: Mapping[str, frozenset[str]], root: Path, environment: Environment
) -> Iterator[Task]:
    here, logs = root / f"seed-{seed}", root / "logs"

    def member(name: str, config: str, overrides: Mapping[str, Any], place: str, folder: Path = here) -> Member:
        path = environment.config_path.parent / config
        return Member(name, path, overrides, f"{environment.config_path}: {place}", folder, seed)

    stages: list[str] = []
    for stage in job.stages:
        made = member(stage.name, stage.config, stage.overrides, f"stages.{stage.name}")
        uses = frozenset(_uses(stage.config, stage.overrides, environment))
        yield Task("stage", stage.name, made, frozenset(stages), uses, logs)
        stages.append(stage.name)
    reads = {name: frozenset(_uses(config, {}, environment) - {THIS}) for name, config in job.evaluations.items()}
    for name, uses in runs.items():
        run = job.members()[name]
        if run.config is not None:
            made = member(name, run.config, run.overrides, f"runs.{name}")
            yield Task("run", name, made, uses.union(stages), uses, logs)
        judged = frozenset({name}) if run.config is not None else uses
        for evaluation, config in job.evaluations.items():
            made = member(name, config, {}, f"evaluations.{evaluation}", here / EVALUATIONS / evaluation)
            made_from = judged | reads[evaluation]
            label = f"{EVALUATIONS}/{evaluation}/{name}"
            yield Task("evaluation", label, made, made_from.union(stages), made_from, logs, name)


def load_task(plan: Plan, task: Task, environment: Environment) -> LoadedConfig:
    """The resolved config of `task`; call it when all that it needs is done."""
    if task.evaluated is None:
        return load_member(task.member, plan.known_to(task), environment)[0]
    return load_member(_named(plan, task, environment), Finished(), environment)[0]


def command_line(plan: Plan, task: Task, environment: Environment) -> list[str]:
    """CONFIG KEY=VALUE …: the arguments of ampo-run that run `task`."""
    if task.evaluated is None:
        return arguments_of(task.member, plan.known_to(task), environment)
    return arguments_of(_named(plan, task, environment), Finished(), environment)


def _named(plan: Plan, task: Task, environment: Environment) -> Member:
    """The evaluation with its only model under the name of the run, and all that its config leaves open filled in."""
    settings, _ = settings_of(task.member, plan.known_to(task), environment)
    data = load_config(task.member.config, settings, environment.plugins).data
    (name, model), *_ = data["models"].items()
    kept = {key: value for key, value in settings.items() if key.partition(".")[0] != "models"}
    return replace(task.member, overrides={**kept, "models": {name: None, task.evaluated: model}})
