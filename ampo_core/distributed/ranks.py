"""The processes that train together. One process is the special case of many, not another code path."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

from ampo_core.config.machines import ALONE, ranks_here

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's place among all ranks."""

    rank: int
    world_size: int
    device: torch.device

    def use_device(self) -> None:
        """Make this rank's GPU the current one of the calling thread: each thread has its own."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def shard(self, items: Sequence[T]) -> list[T]:
        """This rank's share of `items`: every world_size-th."""
        return list(items[self.rank :: self.world_size])

    def balance(self, lengths: Sequence[int]) -> list[int]:
        """Indices of this rank's share of sequences of `lengths`, ascending: every rank gets about as many tokens.

        The longest is dealt first, always to the rank with the fewest tokens so far.
        """
        loads = [0] * self.world_size
        mine = []
        for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
            rank = min(range(self.world_size), key=loads.__getitem__)
            loads[rank] += lengths[index]
            if rank == self.rank:
                mine.append(index)
        return sorted(mine)

    def gather(self, shard: Sequence[T], total: int) -> list[T]:
        """All ranks' shards put back in the order that `shard` took them from; `total` items on every rank.

        None is an item like others. Raises ValueError on all ranks if one of them has too few items, or too many.
        """
        shards = self.each(list(shard))
        for rank, part in enumerate(shards):
            asked = len(range(rank, total, self.world_size))
            if len(part) != asked:
                raise ValueError(f"{len(part)} results for {asked} items on rank {rank}: there must be one for each")
        return [shards[index % self.world_size][index // self.world_size] for index in range(total)]

    def map(self, function: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> list[R]:
        """`function(items)`, which gives one result an item, with the work shared out over the ranks."""
        return self.gather(function(self.shard(items)), len(items))

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum of `value` over all ranks."""
        if self.world_size > 1:
            dist.all_reduce(value)
        return value

    def each(self, value: T) -> list[T]:
        """The `value` of every rank, in the order of ranks."""
        if self.world_size == 1:
            return [value]
        # all_gather_object would do, and copies all that it sends some more times
        data = bytearray(pickle.dumps(value))
        sizes = torch.empty(self.world_size, dtype=torch.int64)
        dist.all_gather(list(sizes.unsqueeze(1)), torch.tensor([len(data)]))
        parts = torch.empty(self.world_size, int(sizes.max()), dtype=torch.uint8)
        data.extend(bytes(parts.shape[1] - len(data)))
        dist.all_gather(list(parts), torch.frombuffer(data, dtype=torch.uint8))
        found = enumerate(zip(parts.numpy(), sizes.tolist(), strict=True))
        return [value if rank == self.rank else pickle.loads(part[:size]) for rank, (part, size) in found]  # noqa: S301

    def first(self, value: T) -> T:
        """Rank 0's `value`, on every rank."""
        if self.world_size == 1:
            return value
        box: list[T] = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def any(self, value: bool) -> bool:
        """True on every rank if it is true on one."""
        return any(self.each(value))

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.world_size > 1:
            dist.barrier()


def join_ranks(threads: int | None = None) -> Ranks:
    """Join the process group that the launcher's environment describes; alone, form one of a single process.

    `threads` limits the CPU threads of this rank. Without it ranks that share a machine also share its cores evenly,
    and a single rank gets PyTorch's default.
    """
    neighbours = ranks_here(os.environ)
    if threads is None and neighbours > 1:
        threads = max(1, (os.cpu_count() or 1) // neighbours)
    if threads is not None:
        torch.set_num_threads(threads)
    cuda = torch.cuda.is_available()
    if "RANK" not in os.environ:
        os.environ[ALONE] = "1"
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        os.environ.setdefault(name, value)
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    ranks = Ranks(rank, world_size, device)
    ranks.use_device()
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        if world_size == 1:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
        else:
            dist.init_process_group(backend)
    return ranks
