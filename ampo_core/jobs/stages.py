"""What a pipeline has to run: its stages, what each of them needs, and its share of threads and GPUs.

A stage's share is a function of the config, never of what happens to run: a stage that goes on has the threads that it
began with, and with them the same bits.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ampo_registry.errors import ConfigError

from ampo_core.config.load import load_config
from ampo_core.config.machines import visible_gpus
from ampo_core.config.nodes import whole_number
from ampo_core.config.pipeline_job import PipelineJob, Stage
from ampo_core.config.tree import ResourcesConfig
from ampo_core.jobs.members import Member
from ampo_core.run.changes import read_config
from ampo_core.run.environment import Environment


@dataclass(frozen=True, slots=True)
class StageTask:
    """A stage. It may run once all of `needs` are finished; `alone` if no other can run while it does."""

    title: str
    member: Member
    needs: frozenset[str] = frozenset()
    alone: bool = True

    @property
    def name(self) -> str:
        """The name of the stage."""
        return self.member.name

    @property
    def log(self) -> Path:
        """Where its output goes, if it runs in a process of its own."""
        return self.member.root / "logs" / f"{self.name}.log"


def plan_stages(job: PipelineJob, environment: Environment) -> list[StageTask]:
    """The stages in order. Raises ConfigError for one that its share of this machine is too small for."""
    titles = [f"stage {position}/{len(job.stages)} {stage.name}" for position, stage in enumerate(job.stages, start=1)]
    members = [_member(stage, job.run.folder, environment) for stage in job.stages]
    if job.at_once == 1:
        return list(map(StageTask, titles, members))
    loaded = [load_config(member.config, member.overrides, environment.plugins) for member in members]
    needs = job.needs({("stages", i): [members[i].overrides, found.data] for i, found in enumerate(loaded)})
    beside = job.beside(needs)
    tasks = []
    for title, member, found in zip(titles, members, loaded, strict=True):
        machines, count = found.job.machines(), beside[member.name]
        if machines is not None and count > 1:
            _check_machines(member, machines, width_here(job.at_once, os.environ))
            member = replace(member, threads=_threads(member, machines, count, os.environ))
        tasks.append(StageTask(title, member, needs[member.name], count == 1))
    return tasks


def width_here(at_once: int, environ: Mapping[str, str]) -> int:
    """How many stages run at once on this machine: no more than it shows GPUs, if it shows any."""
    return min(at_once, visible_gpus(environ) or at_once)


def _member(stage: Stage, root: Path, environment: Environment) -> Member:
    return Member(
        name=stage.name,
        config=environment.config_path.parent / stage.config,
        overrides=stage.overrides,
        place=f"{environment.config_path}: stages.{stage.name}",
        root=root,
        seed=int(environment.config["run"]["seed"]),
    )


def _threads(member: Member, machines: ResourcesConfig, beside: int, environ: Mapping[str, str]) -> int:
    """The share of a stage beside which others run, `beside` with it: of what its config says, else of the cores here.

    What it has begun with on another machine it keeps.
    """
    if machines.threads is not None:
        return max(1, machines.threads // beside)
    if (member.folder / "config.yaml").exists():
        recorded = recorded_threads(member.folder)
        if recorded is not None:
            return recorded
    cores = whole_number(environ.get("OMP_NUM_THREADS", "")) or os.cpu_count() or 1
    return max(1, cores // machines.devices // beside)


def recorded_threads(folder: Path) -> int | None:
    """`resources.threads` of the run in `folder`."""
    threads = (read_config(folder).get("resources") or {}).get("threads")
    return None if threads is None else int(threads)


def _check_machines(member: Member, machines: ResourcesConfig, width: int) -> None:
    """Raise ConfigError if the ranks of a stage cannot start in its share of this machine, one of `width`."""
    gpus, advice = visible_gpus(os.environ), "set at_once: 1, or let it need the stages beside it"
    if machines.nodes > 1:
        text = f"resources.nodes: found {machines.nodes}, but a stage of several nodes has them for itself"
        raise ConfigError(f"{member.place}: {text}; {advice}")
    if 0 < gpus // width < machines.devices:
        text = f"resources.devices: found {machines.devices}, but its share of the {gpus} GPUs here is {gpus // width}"
        raise ConfigError(f"{member.place}: {text}; {advice}")
