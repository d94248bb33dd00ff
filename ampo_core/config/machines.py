"""The machines that `resources` asks for: GPUs here, host files, and the environment of launchers. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ampo_registry.errors import ConfigError

from ampo_core.config.nodes import KeyPath, shortened, whole_number
from ampo_core.config.tree import ResourcesConfig

ALONE = "AMPO_ALONE"
"""Set in the environment of a process that has given itself the rank 0 of a world of one."""
_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "LOCAL_SIZE")
_HOST = re.compile(r"(\S+)\s+slots=([0-9]{1,9})\s*(#.*)?")
_DRIVER = Path("/proc/driver/nvidia/gpus")


def unmet_resources(resources: ResourcesConfig, environ: Mapping[str, str]) -> Iterator[tuple[KeyPath, str]]:
    """What keeps the ranks of `resources` from starting here: (key, text)."""
    if under_launcher(environ):
        return
    gpus = visible_gpus(environ)
    if 0 < gpus < resources.devices and (resources.nodes == 1 or "NODE_RANK" in environ):
        text = f"found {resources.devices}, but this machine has {gpus} GPU{'s' if gpus > 1 else ''}"
        yield ("resources", "devices"), text
    if resources.nodes > 1:
        yield from _unmet_nodes(resources, environ)
    elif environ.get("NODE_RANK", "0") != "0":
        text = f"found 1, but NODE_RANK={environ['NODE_RANK']} in the environment says that this is another node"
        yield ("resources", "nodes"), text


def _unmet_nodes(resources: ResourcesConfig, environ: Mapping[str, str]) -> Iterator[tuple[KeyPath, str]]:
    hosts: list[str] = []
    if resources.hostfile is not None and Path(resources.hostfile).is_file():
        try:
            hosts = read_hostfile(Path(resources.hostfile), resources.nodes, resources.devices)
        except ConfigError as error:
            yield ("resources", "hostfile"), str(error)
            return
    if "NODE_RANK" in environ:
        number = environ["NODE_RANK"]
        found = whole_number(number)
        if found is None or found >= resources.nodes:
            text = f"found {resources.nodes}, but NODE_RANK in the environment is {number!r}; expected 0 to "
            yield ("resources", "nodes"), text + str(resources.nodes - 1)
        if "MASTER_ADDR" not in environ and not hosts:
            text = "NODE_RANK stands in the environment without MASTER_ADDR, the address of node 0; set it too"
            yield ("resources", "nodes"), text
    elif resources.hostfile is None:
        text = (
            f"{resources.nodes} nodes need resources.hostfile (lines 'HOST slots={resources.devices}'), from which "
            "they are started over ssh; or start the same command on every node yourself, with NODE_RANK (0 to "
            f"{resources.nodes - 1}) and MASTER_ADDR (the address of node 0) in the environment"
        )
        yield ("resources", "nodes"), text


def read_hostfile(path: Path, nodes: int, devices: int) -> list[str]:
    """The first `nodes` hosts of a DeepSpeed host file: lines `HOST slots=N`; empty ones and # comments are skipped.

    Raises ConfigError with file and line for a malformed line, a host that stands twice, or one with fewer than
    `devices` slots; with the file if it names fewer than `nodes` hosts.
    """
    hosts: list[str] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        found, place = _HOST.fullmatch(text), f"{path}:{number}"
        if found is None:
            raise ConfigError(f"{place}: found {text!r}, expected 'HOST slots=N'")
        if found[1] in hosts:
            raise ConfigError(f"{place}: the host {found[1]} stands twice")
        if len(hosts) < nodes and int(found[2]) < devices:
            raise ConfigError(f"{place}: {found[1]} has {found[2]} slots, but resources.devices is {devices}")
        hosts.append(found[1])
    if len(hosts) < nodes:
        raise ConfigError(f"{path}: names {len(hosts)} hosts, but resources.nodes is {nodes}")
    return hosts[:nodes]


def under_launcher(environ: Mapping[str, str]) -> bool:
    """True if a launcher (torchrun, DeepSpeed's, this one) has started this process as one of its ranks."""
    return "RANK" in environ and "WORLD_SIZE" in environ and ALONE not in environ


def launcher_faults(environ: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the variables by which a launcher tells this process which rank it is."""
    if ALONE in environ:
        return
    end = "; a launcher sets them: start ampo-run without it, or unset RANK and WORLD_SIZE and let ampo-run start ranks"
    for name, other in (("RANK", "WORLD_SIZE"), ("WORLD_SIZE", "RANK")):
        if name in environ and other not in environ:
            yield f"environment: {name}: found {environ[name]!r} without {other}{end}"
    numbers = {name: whole_number(environ[name]) for name in _NUMBERS if name in environ}
    for name, number in numbers.items():
        if number is None:
            yield f"environment: {name}: found {shortened(environ[name])}, expected a whole number{end}"
    rank, size = numbers.get("RANK"), numbers.get("WORLD_SIZE")
    if rank is not None and size is not None and rank >= size:
        yield f"environment: RANK: found {rank} with WORLD_SIZE {size}; ranks count from 0{end}"


def rank_in(environ: Mapping[str, str]) -> int:
    """This process's number among the ranks of its launcher; 0 without one, or if its number is no number."""
    return (whole_number(environ["RANK"]) or 0) if under_launcher(environ) else 0


def ranks_here(environ: Mapping[str, str]) -> int:
    """How many ranks of this process's launcher share this machine, 1 without a launcher."""
    return int(environ.get("LOCAL_WORLD_SIZE") or environ.get("LOCAL_SIZE") or 1)


def visible_gpus(environ: Mapping[str, str]) -> int:
    """How many NVIDIA GPUs the driver and CUDA_VISIBLE_DEVICES show, 0 where there is no driver."""
    present = len(list(_DRIVER.iterdir())) if _DRIVER.is_dir() else 0
    shown = environ.get("CUDA_VISIBLE_DEVICES")
    if not present or shown is None:
        return present
    return len([device for device in shown.split(",") if device.strip() not in ("", "-1")])
