"""Starts a job's ranks, passes signals on to them, and says once what ended them.

alone in the environment, devices: 1           no launch: the job runs in this process
RANK and WORLD_SIZE stand in the environment   no launch: a launcher has started this process as a rank
devices: N                                     torch elastic starts N ranks on this machine
nodes: M, NODE_RANK in the environment         torch elastic starts this node's ranks, which meet at MASTER_ADDR
nodes: M and a host file                       DeepSpeed's launcher starts the ranks of all nodes over ssh
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ampo_registry.errors import ConfigError, RunError
from ampo_registry.text import a

from ampo_core.config.jobs import Job
from ampo_core.config.machines import launcher_faults, read_hostfile, under_launcher, unmet_resources
from ampo_core.config.nodes import dotted
from ampo_core.config.run_names import finished_output
from ampo_core.config.tree import ResourcesConfig
from ampo_core.distributed.outcome import Order, write_order
from ampo_core.distributed.starters import DeepSpeedRanks, ElasticRanks
from ampo_core.distributed.supervise import Starter, supervise
from ampo_core.run.environment import Environment

MASTER_PORT = 29500


@dataclass(frozen=True, slots=True)
class Launch:
    """How many ranks to start, and where.

    `hosts` are the nodes that DeepSpeed's launcher starts; else the ranks of node `node_rank` are started here, and
    with several nodes they meet at `master`, HOST:PORT.
    """

    devices: int
    nodes: int = 1
    node_rank: int = 0
    master: str = ""
    hosts: tuple[str, ...] = ()
    hostfile: str | None = None


def plan_launch(job: Job, environ: Mapping[str, str]) -> Launch | None:
    """How `job` gets its ranks; None if it runs in this process, alone or as a rank of a launcher.

    Raises ConfigError if a launcher has started another number of ranks than the config says, or if the ranks cannot
    start here.
    """
    resources = job.machines()
    if faults := list(launcher_faults(environ)):
        raise ConfigError("\n".join(faults))
    if under_launcher(environ):
        _check_world(job, resources, int(environ["WORLD_SIZE"]))
        return None
    if resources is None:
        _check_node(job, environ)
        return None
    _refuse(resources, environ)
    if resources.nodes == 1:
        return Launch(resources.devices) if resources.devices > 1 else None
    hosts: list[str] = []
    if resources.hostfile is not None:
        hosts = read_hostfile(Path(resources.hostfile), resources.nodes, resources.devices)
    if "NODE_RANK" not in environ:
        return Launch(resources.devices, resources.nodes, hosts=tuple(hosts), hostfile=resources.hostfile)
    address = environ.get("MASTER_ADDR") or hosts[0]
    port = environ.get("MASTER_PORT") or str(MASTER_PORT)
    return Launch(resources.devices, resources.nodes, int(environ["NODE_RANK"]), f"{address}:{port}")


def run_ranks(launch: Launch, job: Job, environment: Environment) -> Path:
    """Run `job` in ranks of its own, wait for their end and return the job's output.

    Raises what the ranks raised, once: ConfigError, RunError (which names the rank that died or differs) or
    Interrupted; KeyboardInterrupt where a signal ended them without a checkpoint.
    """
    _check_gpus(launch)
    with _order_folder(launch, job, environment) as folder:
        supervise(_starter(launch, folder), folder)
    if launch.node_rank > 0:  # whose file system may not be the one that node 0 has written to
        return job.run.folder
    output = finished_output(job.run.folder)
    if output is None:
        raise RunError(f"all ranks ended well, but {job.run.folder} is not marked as done")
    return output


def _starter(launch: Launch, folder: Path) -> Starter:
    if launch.hosts:
        ranks = DeepSpeedRanks(folder, str(launch.hostfile), launch.hosts, launch.devices)
        ranks.check()
        return ranks
    return ElasticRanks(folder, launch.devices, launch.nodes, launch.node_rank, launch.master)


def _check_world(job: Job, resources: ResourcesConfig | None, found: int) -> None:
    if resources is None and found > 1:
        raise ConfigError(
            f"{a(job.job)} job runs as one process, but RANK and WORLD_SIZE in the environment say that this is one of "
            f"{found} ranks; start it without a launcher"
        )
    if resources is not None and found != resources.devices * resources.nodes:
        raise ConfigError(
            f"WORLD_SIZE in the environment says that a launcher has started {found} ranks, but resources.devices × "
            f"resources.nodes = {resources.devices * resources.nodes}; set them to what the launcher starts, or "
            "unset RANK and WORLD_SIZE and let ampo-run start the ranks"
        )


def _check_node(job: Job, environ: Mapping[str, str]) -> None:
    if environ.get("NODE_RANK", "0") != "0":
        raise ConfigError(
            f"{a(job.job)} job runs on one machine, but NODE_RANK={environ['NODE_RANK']} in the environment says that "
            "this is another node; start its stages one by one on all nodes, or give them a resources.hostfile"
        )


def _refuse(resources: ResourcesConfig, environ: Mapping[str, str]) -> None:
    found = [f"{dotted(path)}: {text}" for path, text in unmet_resources(resources, environ)]
    if found:
        raise ConfigError("\n".join(found))
    if resources.nodes > 1 and "NODE_RANK" not in environ:
        for program in ("ssh", "pdsh"):
            if shutil.which(program) is None:
                raise ConfigError(
                    f"resources.hostfile: DeepSpeed's launcher needs {program}, which is not installed here; or start "
                    "the same command on every node with NODE_RANK and MASTER_ADDR in the environment"
                )


def _check_gpus(launch: Launch) -> None:
    """What CUDA says goes before what the driver's files say. Gives GPU memory of an earlier stage back."""
    import torch

    if launch.hosts or not torch.cuda.is_available():
        return
    gpus = torch.cuda.device_count()
    if launch.devices > gpus:
        raise ConfigError(f"resources.devices: found {launch.devices}, but this machine has {gpus} GPUs")
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


@contextmanager
def _order_folder(launch: Launch, job: Job, environment: Environment) -> Iterator[Path]:
    """The folder that ranks start from and report in; ranks of other machines find it beside the run's folder."""
    parent = Path(job.run.dir) if launch.hosts else None
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".ampo-ranks-", dir=parent)).absolute()
    plugins = [source.distribution for source in environment.plugins.loaded if source.version == "file"]
    reporting = launch.devices * (len(launch.hosts) or 1)
    order = Order(reporting, plugins, environment.trust_remote_code, environment.allow_changes)
    try:
        write_order(folder, environment.yaml, order)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
