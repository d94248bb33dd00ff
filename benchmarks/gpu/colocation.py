"""Learner and rollout engine of a train job beside each other, driven by hand in the order of the loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from ampo_registry.types import Rollout, RolloutRequest

from ampo_core.jobs.libraries import settle_libraries
from ampo_core.learner.packing import TokenPair
from ampo_core.loop.assemble import assemble
from gpu import device
from gpu.learning import load_job
from gpu.rows import Setting

if TYPE_CHECKING:
    from ampo_core.loop.parts import TrainParts

# Large enough that a rollout engine which keeps its old weights is told apart from one that took the new ones.
LEARNING_RATE = "2e-4"


@contextmanager
def assembled(setting: Setting) -> Iterator[TrainParts]:
    """The parts of the train job."""
    settle_libraries()
    job, environment = load_job(setting, "colocated", f"training.learning_rate={LEARNING_RATE}")
    with assemble(job, environment) as parts:
        yield parts


@dataclass(frozen=True, slots=True)
class Memory:
    """GiB that sleeping freed and that sync and wake took again, and the seconds of sleep and wake."""

    freed: float | None
    taken: float | None
    sleep_s: float
    wake_s: float


class Pair:
    """Learner and engine of `parts`; responses have at most `tokens` tokens."""

    def __init__(self, parts: TrainParts, tokens: int) -> None:
        self._parts = parts
        self._sampling = replace(parts.sampler.options, max_response_tokens=tokens)
        self._questions = parts.questions.take(0, parts.group_filter.batch)

    def sample(self, first_seed: int) -> list[list[Rollout]]:
        """A group for each question as the loop samples it, with seeds from `first_seed` on: wake, generate, sleep."""
        engine, size = self._parts.engine, self._parts.sampler.group_size
        requests = [
            RolloutRequest(question.prompt_token_ids, tuple(range(first_seed + i * size, first_seed + (i + 1) * size)))
            for i, question in enumerate(self._questions)
        ]
        engine.wake()
        rollouts = engine.generate(requests, self._sampling)
        engine.sleep()
        return rollouts

    def gap(self, rollouts: Sequence[Sequence[Rollout]]) -> str:
        """Mean and max of |log π_trainer − log π_rollout| over all tokens, in nats."""
        own = self._parts.learner.logprobs(self._pairs(rollouts), temperature=self._sampling.temperature)
        theirs = [torch.tensor(rollout.logprobs) for group in rollouts for rollout in group]
        gaps = torch.cat([(a.float().cpu() - b).abs() for a, b in zip(own, theirs, strict=True)])
        return f"{gaps.mean():.2g} / {gaps.max():.2g} nats ({len(gaps):,} tokens)"

    def learn(self, rollouts: Sequence[Sequence[Rollout]]) -> None:
        """One optimizer step that makes `rollouts` likelier."""
        pairs = self._pairs(rollouts)
        tokens = sum(len(pair.response_token_ids) for pair in pairs)

        def loss(_: list[int], log_probs: list[torch.Tensor], __: list[torch.Tensor]) -> torch.Tensor:
            return -torch.cat(log_probs).sum() / tokens

        self._parts.learner.update(
            pairs, loss, learning_rate=1e-6, temperature=self._sampling.temperature, entropy=False
        )

    def sync(self, version: int) -> None:
        """Give the learner's weights to the engine, which sleeps as it does in the loop."""
        self._parts.engine.load_weights(self._parts.learner.weights(), policy_version=version)

    def sleep_and_wake(self) -> Memory:
        """What the engine gives back when it sleeps, and takes again by a sync and a wake."""
        engine = self._parts.engine
        engine.wake()
        awake = device.used()
        sleep_s = _seconds(engine.sleep)
        asleep = device.used()
        self.sync(0)
        wake_s = _seconds(engine.wake)
        again = device.used()
        engine.sleep()
        known = awake is not None and asleep is not None and again is not None
        return Memory(awake - asleep if known else None, again - asleep if known else None, sleep_s, wake_s)

    def _pairs(self, rollouts: Sequence[Sequence[Rollout]]) -> list[TokenPair]:
        return [
            TokenPair(question.prompt_token_ids, rollout.token_ids)
            for question, group in zip(self._questions, rollouts, strict=True)
            for rollout in group
        ]


def _seconds(run: Callable[[], object]) -> float:
    device.settle()
    started = time.perf_counter()
    run()
    device.settle()
    return time.perf_counter() - started
