"""Items that ranks share out and put together again."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ampo_registry import TokenIds

from ampo_core.distributed.ranks import Ranks

CPU = torch.device("cpu")


def gathered(monkeypatch: pytest.MonkeyPatch, shards: list[list[Any]], total: int) -> list[Any]:
    """What rank 0 gets when the ranks hold `shards`."""
    monkeypatch.setattr(Ranks, "each", lambda self, value: shards)
    return Ranks(0, len(shards), CPU).gather(shards[0], total)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("items", [[], ["a"], [None], ["a", None, "c", "d", None, 0, ""]])
def test_what_was_shared_out_comes_back_in_order(
    monkeypatch: pytest.MonkeyPatch, world_size: int, items: list[Any]
) -> None:
    shards = [Ranks(rank, world_size, CPU).shard(items) for rank in range(world_size)]
    assert gathered(monkeypatch, shards, len(items)) == items


def test_values_of_any_size_reach_every_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [["short"], {"long": "x" * 1000, "ids": TokenIds(range(100))}, None]
    data = [pickle.dumps(value) for value in values]
    sent: list[torch.Tensor] = []

    def all_gather(into: list[torch.Tensor], own: torch.Tensor) -> None:
        sent.append(own)
        for part, found in zip(into, data, strict=True):
            if own.dtype == torch.int64:
                part.fill_(len(found))
            else:
                assert len(own) == len(part) == max(map(len, data))
                part[: len(found)] = torch.frombuffer(bytearray(found), dtype=torch.uint8)

    monkeypatch.setattr(dist, "all_gather", all_gather)
    for rank, value in enumerate(values):
        found = Ranks(rank, 3, CPU).each(value)
        assert found == values
        assert found[rank] is value
        assert bytes(sent[-1].numpy())[: len(data[rank])] == data[rank]


@pytest.mark.parametrize(
    ("shards", "said"),
    [
        ([["a"]], "1 results for 2 items on rank 0"),
        ([["a"], []], "0 results for 1 items on rank 1"),
        ([["a"], ["b", "c"]], "2 results for 1 items on rank 1"),
    ],
)
def test_a_missing_result_is_an_error(monkeypatch: pytest.MonkeyPatch, shards: list[list[Any]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        gathered(monkeypatch, shards, 2)


@pytest.mark.parametrize(
    ("lengths", "world_size", "shares"),
    [
        ([5, 9, 2, 7, 4, 3], 2, [[1, 2, 4], [0, 3, 5]]),
        ([3, 3, 3, 3, 3], 2, [[0, 2, 4], [1, 3]]),
        ([8, 1, 1, 1, 1, 1, 1, 1], 3, [[0], [1, 3, 5, 7], [2, 4, 6]]),
        ([], 2, [[], []]),
        ([4], 2, [[0], []]),
    ],
)
def test_each_rank_gets_about_as_many_tokens(lengths: list[int], world_size: int, shares: list[list[int]]) -> None:
    assert [Ranks(rank, world_size, CPU).balance(lengths) for rank in range(world_size)] == shares
