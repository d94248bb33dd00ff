"""Sampling one batch ahead, while the learner updates: the batch is then one policy version old.

What is sampled does not depend on when: the thread starts with the weights of the last sync and is waited for before
the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from ampo_registry.types import Grade, Rollout

from ampo_core.ranks import Ranks


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

    def start(self, work: Callable[[], SampledBatch]) -> None:
        """Run `work`, which samples and grades this rank's share of the next batch, beside what comes next."""
        self._future = self._thread.submit(work)

    def wait(self) -> None:
        """Until the batch is there. Raises what `work` raised."""
        if self._future is not None:
            self._share, self._future = self._future.result(), None

    def take(self, questions: int) -> SampledBatch | None:
        """The whole batch of so many `questions`, from all ranks, once; None if none was sampled ahead."""
        self.wait()
        share, self._share = self._share, None
        if share is None:
            return None
        pairs = self._ranks.gather(list(zip(share.rollouts, share.verdicts or [], strict=True)), questions)
        return SampledBatch([rollouts for rollouts, _ in pairs], [verdicts for _, verdicts in pairs])

    def close(self) -> None:
        """Wait for the thread to end."""
        self._thread.shutdown(cancel_futures=True)

    def state_dict(self) -> dict[str, Any]:
        """The waiting share as JSON; empty without one."""
        self.wait()
        return {} if self._share is None else asdict(self._share)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the share that `state_dict` gave."""
        self._share = SampledBatch(_rollouts(state["rollouts"]), _grades(state["verdicts"])) if state else None


def _rollouts(groups: Sequence[Sequence[dict[str, Any]]]) -> list[list[Rollout]]:
    return [
        [Rollout(**{**r, "token_ids": tuple(r["token_ids"]), "logprobs": tuple(r["logprobs"])}) for r in group]
        for group in groups
    ]


def _grades(groups: Sequence[Sequence[dict[str, Any]]]) -> list[list[Grade]]:
    return [[Grade(**grade) for grade in group] for group in groups]
