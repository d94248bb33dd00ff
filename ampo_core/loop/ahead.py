"""Sampling one batch ahead, while the learner updates: the batch is then one policy version old.

What is sampled does not depend on when: the thread starts with the weights of the last sync and is waited for before
the next one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from ampo_registry.types import Grade, Question, Rollout, RolloutRequest

from ampo_core.distributed.ranks import Ranks


@dataclass(frozen=True, slots=True)
class SampledBatch:
    """Rollouts of each question, and their verdicts where the batch was graded too."""

    rollouts: list[list[Rollout]]
    verdicts: list[list[Grade]] | None = None


class SampleAhead:
    """At most one batch that is being sampled, or waits to be trained on. Each rank holds its own share of it."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ahead", initializer=ranks.use_device)
        self._future: Future[SampledBatch] | None = None
        self._share: SampledBatch | None = None
        self._tickets: list[str] = []

    def start(
        self, questions: Sequence[Question], requests: Sequence[RolloutRequest], work: Callable[[], SampledBatch]
    ) -> None:
        """Run `work`, which samples and grades this rank's share of the next batch, `questions` with `requests`,
        beside what comes next."""
        self._tickets = _tickets(questions, requests)
        self._future = self._thread.submit(work)

    def wait(self) -> None:
        """Until the batch is there. Raises what `work` raised."""
        if self._future is not None:
            self._share, self._future = self._future.result(), None

    def take(self, questions: Sequence[Question], requests: Sequence[RolloutRequest]) -> SampledBatch | None:
        """The whole batch, from all ranks, once; None if none was sampled ahead, or another one than is asked for:
        a run that goes on with changes may have other questions, prompts or seeds now."""
        self.wait()
        share, self._share = self._share, None
        if share is None:
            return None
        asked = _tickets(self._ranks.shard(questions), self._ranks.shard(requests))
        if self._ranks.any(asked != self._tickets):
            return None
        pairs = self._ranks.gather(list(zip(share.rollouts, share.verdicts or [], strict=True)), len(questions))
        return SampledBatch([rollouts for rollouts, _ in pairs], [verdicts for _, verdicts in pairs])

    def close(self) -> None:
        """Wait for the thread to end."""
        self._thread.shutdown(cancel_futures=True)

    def state_dict(self) -> dict[str, Any]:
        """The waiting share as JSON; empty without one."""
        self.wait()
        if self._share is None:
            return {}
        return {
            "rollouts": [[_written(rollout) for rollout in group] for group in self._share.rollouts],
            "verdicts": [[asdict(grade) for grade in group] for group in self._share.verdicts or []],
            "tickets": self._tickets,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the share that `state_dict` gave."""
        if state:
            self._share = SampledBatch(_rollouts(state["rollouts"]), _grades(state["verdicts"]))
            self._tickets = list(state["tickets"])


def _tickets(questions: Sequence[Question], requests: Sequence[RolloutRequest]) -> list[str]:
    """What tells for which questions, prompts and seeds a batch was sampled."""
    pairs = zip(questions, requests, strict=True)
    asked = ((question.uid, tuple(request.prompt_token_ids), request.seeds) for question, request in pairs)
    return [hashlib.sha256(repr(item).encode()).hexdigest() for item in asked]


def _written(rollout: Rollout) -> dict[str, Any]:
    """`rollout` in JSON types."""
    return {**asdict(rollout), "token_ids": list(rollout.token_ids), "logprobs": list(rollout.logprobs)}


def _rollouts(groups: Sequence[Sequence[dict[str, Any]]]) -> list[list[Rollout]]:
    return [[Rollout(**rollout) for rollout in group] for group in groups]


def _grades(groups: Sequence[Sequence[dict[str, Any]]]) -> list[list[Grade]]:
    return [[Grade(**grade) for grade in group] for group in groups]
