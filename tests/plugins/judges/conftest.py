"""A judge's model, another one than the student's with the same tokenizer, and a server of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from ampo_registry import BuildContext, Judge, JudgeRequest, TokenIds

from ampo_core.learner.frozen import FrozenModel
from tests.conftest import write_tiny_model
from tests.plugins.judges.server import PromptServer


def load_frozen(path: str, dtype: str | None) -> Judge:
    return FrozenModel(path, dtype or "float32", torch.device("cpu"), 64, key="judges.other.path")


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory, golden_tokenizer: Any) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("judges") / "teacher", golden_tokenizer, tied=True, seed=5)


@pytest.fixture
def context(golden_tokenizer: Any) -> BuildContext:
    return BuildContext(tokenizer=golden_tokenizer, place="judges.far", longest=100, load_frozen=load_frozen)


@pytest.fixture
def server(teacher: Path) -> Iterator[PromptServer]:
    found = PromptServer(teacher)
    yield found
    found.close()


def requests(count: int = 6, seed: int = 0) -> list[JudgeRequest]:
    source = Random(seed)

    def ids(most: int) -> TokenIds:
        return TokenIds(source.randrange(60) for _ in range(source.randint(1, most)))

    return [JudgeRequest(ids(9), ids(20)) for _ in range(count)]


def largest_gap(found: Any, expected: Any) -> float:
    assert [len(one) for one in found] == [len(one) for one in expected]
    return max(abs(a - b) for x, y in zip(found, expected, strict=True) for a, b in zip(x, y, strict=True))
