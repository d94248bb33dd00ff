"""Sending weights to vLLM servers: vLLM's weight-transfer API over HTTP, the tensors by NCCL broadcast."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

import torch
from ampo_registry import RunError
from torch import Tensor

from ampo_plugins.server import HttpServer, RouteMissing

MIB = 2**20


class Broadcaster(Protocol):
    """The NCCL group of this process, rank 0, and all workers of all servers."""

    def broadcast(self, tensor: Tensor) -> None:
        """Give `tensor` to everybody; may return before it is sent."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...


Join = Callable[[str, int, int], Broadcaster]
"""(address, port, world size) -> the group, once all workers have joined too."""


class WeightSender:
    """Drives one weight update after the other on `servers`; used on rank 0 alone."""

    def __init__(
        self, servers: Sequence[HttpServer], *, address: str | None, port: int | None, bucket_mib: int, join: Join
    ) -> None:
        self.servers = tuple(servers)
        self._bucket = bucket_mib * MIB
        self._threads = ThreadPoolExecutor(max_workers=len(self.servers))
        self._group = self._connect(address or socket.gethostname(), port or _free_port(), join)

    def _connect(self, address: str, port: int, join: Join) -> Broadcaster:
        """Every worker and this process meet at `address`:`port`; ranks follow the order of the servers."""
        sizes = [int(server.get("get_world_size")["world_size"]) for server in self.servers]
        world_size = 1 + sum(sizes)
        calls = []
        for i, server in enumerate(self.servers):
            info = {
                "master_address": address,
                "master_port": port,
                "rank_offset": 1 + sum(sizes[:i]),
                "world_size": world_size,
            }
            calls.append(self._threads.submit(server.post, "init_weight_transfer_engine", {"init_info": info}))
        # A server that refuses would leave the others, and this process, waiting for it.
        for call in wait(calls, timeout=1.0).done:
            call.result()
        group = join(address, port, world_size)
        for call in calls:
            call.result()
        return group

    def send(self, weights: Iterable[tuple[str, Tensor]], policy_version: int) -> None:
        """Pause the servers, send `weights` bucket by bucket, and let them go on with `policy_version`.

        Raises RunError that names the server that failed; the group is unusable then.
        """
        self._all("pause?mode=wait")
        self._all("start_weight_update", {"is_checkpoint_format": True})
        for bucket in buckets(weights, self._bucket):
            info = {
                "names": [name for name, _ in bucket],
                "dtype_names": [str(tensor.dtype).removeprefix("torch.") for _, tensor in bucket],
                "shapes": [list(tensor.shape) for _, tensor in bucket],
            }
            calls = self._start("update_weights", {"update_info": info})
            for call in wait(calls, timeout=0.0).done:
                call.result()
            for _, tensor in bucket:
                self._group.broadcast(tensor)
            # the answers mean that all has arrived, and only then may the bucket's tensors go
            _results(calls)
        self._all("finish_weight_update", {"weight_version": str(policy_version)})
        self._all("reset_prefix_cache")
        self._all("resume")

    def close(self) -> None:
        """Leave the group."""
        self._group.close()
        self._threads.shutdown(wait=False)

    def _start(self, route: str, body: Any = None) -> list[Future[Any]]:
        return [self._threads.submit(server.post, route, body) for server in self.servers]

    def _all(self, route: str, body: Any = None) -> None:
        try:
            _results(self._start(route, body))
        except RouteMissing as error:
            raise RunError(
                f"{error}; start the server with VLLM_SERVER_DEV_MODE=1 and vLLM >=0.26,<0.34, "
                """with --weight-transfer-config '{"backend": "nccl"}'"""
            ) from error


def buckets(weights: Iterable[tuple[str, Tensor]], limit: int) -> Iterator[list[tuple[str, Tensor]]]:
    """`weights` in order, in lists of at most `limit` bytes; a larger tensor is a list of its own."""
    bucket: list[tuple[str, Tensor]] = []
    size = 0
    for name, tensor in weights:
        if bucket and size + tensor.nbytes > limit:
            yield bucket
            bucket, size = [], 0
        bucket.append((name, tensor.contiguous()))
        size += tensor.nbytes
    if bucket:
        yield bucket


def join_nccl(address: str, port: int, world_size: int) -> Broadcaster:
    """Rank 0 of a NCCL group outside torch.distributed's, as vLLM's workers form it."""
    from vllm.distributed.device_communicators.pynccl import PyNcclCommunicator
    from vllm.distributed.utils import StatelessProcessGroup

    group = StatelessProcessGroup.create(host=address, port=port, rank=0, world_size=world_size)
    return _Nccl(PyNcclCommunicator(group, device=torch.cuda.current_device()))


class _Nccl:
    def __init__(self, communicator: Any) -> None:
        self._communicator = communicator

    def broadcast(self, tensor: Tensor) -> None:
        self._communicator.broadcast(tensor, src=0, stream=torch.cuda.current_stream())

    def close(self) -> None:
        # older versions have none: the group goes with the process
        if hasattr(self._communicator, "destroy"):
            self._communicator.destroy()


def _results(calls: Sequence[Future[Any]]) -> None:
    for call in calls:
        call.result()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        return int(found.getsockname()[1])
