"""The pytest plugin: fixtures for tests of plugins, whose names begin with `ampo_`. pytest finds it by its entry point
(`-p no:ampo` leaves it out); it imports nothing of AMPO before a test asks for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ampo_core.testing.steps import Steps, run_steps
from ampo_core.testing.world import TinyWorld, tiny_world

if TYPE_CHECKING:
    from ampo_registry import Question, RolloutGroup, SelectionRequest, StepContext, StepReport
    from ampo_registry.testing import FakeEngine, FakeJudge, FakePool, FakeScorer


@pytest.fixture
def ampo_run_steps(tmp_path: Path) -> Callable[..., Steps]:
    """`ampo_core.testing.run_steps`: real steps on a tiny model; each call gets a folder in `tmp_path`."""
    numbers = count(1)

    def run(*arguments: object, **options: object) -> Steps:
        folder = options.pop("folder", tmp_path / f"steps-{next(numbers)}")
        return partial(run_steps, *arguments, folder=folder, **options)()  # type: ignore[arg-type]

    return run


@pytest.fixture(scope="session")
def ampo_world() -> TinyWorld:
    """The tiny world: folder of a model with its tokenizer, files of questions."""
    return tiny_world()


@pytest.fixture
def ampo_question() -> Callable[..., Question]:
    """Makes questions: `ampo_question(3, answer="42")`."""
    from ampo_registry.testing import example_question

    return example_question


@pytest.fixture
def ampo_group() -> Callable[..., RolloutGroup]:
    """Makes groups with these rewards: `ampo_group((0.0, 1.0))`."""
    from ampo_registry.testing import example_group

    return example_group


@pytest.fixture
def ampo_request() -> Callable[..., SelectionRequest]:
    """Makes what a selector is asked: `ampo_request(candidates=4, k=2)`."""
    from ampo_registry.testing import example_request

    return example_request


@pytest.fixture
def ampo_step() -> Callable[..., StepContext]:
    """Makes the context of a step with a fake model behind it: `ampo_step(3)`."""
    from ampo_registry.testing import example_step

    return example_step


@pytest.fixture
def ampo_report() -> Callable[..., StepReport]:
    """Makes what an observer gets: `ampo_report(texts=[["a", "b"]])`."""
    from ampo_registry.testing import example_report

    return example_report


@pytest.fixture
def ampo_scorer() -> FakeScorer:
    """A scorer without a model."""
    from ampo_registry.testing import FakeScorer

    return FakeScorer()


@pytest.fixture
def ampo_judge() -> FakeJudge:
    """A judge without a model."""
    from ampo_registry.testing import FakeJudge

    return FakeJudge()


@pytest.fixture
def ampo_pool() -> FakePool:
    """A pool of teachers that gives the answers of a question's own data."""
    from ampo_registry.testing import FakePool

    return FakePool()


@pytest.fixture
def ampo_engine() -> FakeEngine:
    """A rollout engine without a model."""
    from ampo_registry.testing import FakeEngine

    return FakeEngine()
