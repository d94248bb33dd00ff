"""The processes that grading runs in: each task has a deadline, and a dead worker costs one task."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from ampo_registry.errors import ConfigError, RunError
from ampo_registry.specs import RewardSpec
from ampo_registry.types import GradeStatus
from pebble import ProcessExpired, ProcessPool

from ampo_core.config.machines import ranks_here
from ampo_core.grading import worker as grading_worker

MAX_WORKERS = 16
LONGER = 4
"""How much more time each further try gets."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task: its result, or with a status that is not ok the reason."""

    status: GradeStatus
    value: Any


class GradingPool:
    """Worker processes that have built the reward. `close` ends them, whatever they are doing.

    Raises ConfigError if `spec` cannot be sent to another process.
    """

    def __init__(self, spec: RewardSpec) -> None:
        self._spec = spec
        try:
            self._pickled = pickle.dumps(spec)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(f"reward {type(spec).__name__} cannot be sent to a worker process: {error}") from error
        self._pool = self._start()
        self._closed = False

    def run(self, task: Callable[..., Any], arguments: Sequence[object], tries: int = 1) -> list[Outcome]:
        """`task` of each argument, in order, each within `timeout_s` seconds of its start.

        What has failed is tried again, `tries` times in all, with `LONGER` times the seconds each time. If the pool as
        a whole breaks (all idle workers were killed), what has no result is run again, once, in a fresh one. Raises
        RunError if that breaks too.
        """
        outcomes = self._survive(task, arguments, self._spec.timeout_s)
        for more in range(1, tries):
            failed = [index for index, outcome in enumerate(outcomes) if outcome.status != "ok"]
            again = self._survive(task, [arguments[i] for i in failed], self._spec.timeout_s * LONGER**more)
            for index, outcome in zip(failed, again, strict=True):
                outcomes[index] = outcome
        return outcomes

    def close(self) -> None:
        """End the workers and wait until they are gone. May be called twice."""
        self._closed = True
        _stop(self._pool)

    def _survive(self, task: Callable[..., Any], arguments: Sequence[object], seconds: float) -> list[Outcome]:
        done: dict[int, Outcome] = {}
        try:
            self._run(task, arguments, seconds, done)
        except RuntimeError:
            if self._closed:
                raise
            _stop(self._pool)
            self._pool = self._start()
            try:
                self._run(task, arguments, seconds, done)
            except RuntimeError as again:
                raise RunError(f"the grading workers keep dying: {again}") from again
        return [done[index] for index in range(len(arguments))]

    def _run(
        self, task: Callable[..., Any], arguments: Sequence[object], seconds: float, done: dict[int, Outcome]
    ) -> None:
        """Add to `done` the outcomes that it lacks. Raises RuntimeError, of which BrokenProcessPool is one, if the pool
        breaks; what had come by then is in `done`."""
        open_tasks = [index for index in range(len(arguments)) if index not in done]
        futures = [self._pool.schedule(task, args=(arguments[index],), timeout=seconds) for index in open_tasks]
        broken: BrokenProcessPool | None = None
        for index, future in zip(open_tasks, futures, strict=True):
            try:
                done[index] = _outcome(future, seconds)
            except BrokenProcessPool as error:
                broken = error
        if broken is not None:
            raise broken

    def _start(self) -> ProcessPool:
        # Not fork: the parent may hold torch's threads and a CUDA context.
        return ProcessPool(
            max_workers=worker_count(self._spec),
            context=multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn"),
            initializer=grading_worker.start,
            initargs=(self._pickled,),
        )


def _outcome(future: Future[Any], seconds: float) -> Outcome:
    try:
        value = future.result()
    except TimeoutError:
        return Outcome("timeout", f"no verdict within {seconds:g} s")
    except ProcessExpired as error:
        return Outcome("error", f"the worker died (exit code {error.exitcode})")
    return Outcome("error" if isinstance(value, grading_worker.Failure) else "ok", value)


def _stop(pool: Any) -> None:
    pool.stop()
    pool.join()


def worker_count(spec: RewardSpec) -> int:
    """The number of workers of this process: as said, or for `auto` the usable CPU cores, shared out over the ranks on
    this machine, at most 16."""
    if spec.workers != "auto":
        return spec.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores // ranks_here(os.environ), MAX_WORKERS))
