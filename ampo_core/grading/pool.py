"""The processes that grading runs in: each task has a deadline, and a dead worker costs one task.

A verdict must not depend on what else the machine does. So the deadline is CPU time of the worker, and what fails in a
way that the machine may be to blame for runs once more, by itself, before that counts. The first try is short: honest
answers take milliseconds, and the others wait for the second one anyway.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
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
QUICK = 0.2
"""Share of the time that a first try gets where a second one decides."""
LONGER = 4
"""How much more time each further try gets, where there are several."""
WALL = 10
"""How many times its CPU time a task may take by the clock: it may sleep, wait for a network, or for a busy machine."""
KILLED = -9
"""Exit code of a worker that the system has killed, as it does where memory runs out."""
BREAKS = 2
"""Breaks of the whole pool in a row, nothing finished between them, that are one too many."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task: its result, or with a status that is not ok the reason. `machine`: it may be the
    machine's doing."""

    status: GradeStatus
    value: Any
    machine: bool = False


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
        self._one_call = threading.Lock()

    def run(self, task: Callable[..., Any], arguments: Sequence[object], tries: int = 1) -> list[Outcome]:
        """`task` of each argument, in order, each within `timeout_s` seconds of CPU time, and `WALL` times that by the
        clock; on Windows within `timeout_s` by the clock.

        A first try has `QUICK` of the CPU time. What the machine may be to blame for (a deadline, a worker that was
        killed or out of memory) runs again when nothing else does: deadlines on half of the workers at a time, so that
        each has a core to itself, the rest one by one. With `tries` all that has failed runs again instead, so many
        times in all, the first one within all of the seconds, each further one within `LONGER` times more. If the pool
        as a whole breaks (all idle workers were killed), what has no result is run again in a fresh one. Raises
        RunError if it keeps breaking. Calls from several threads take turns.
        """
        seconds = self._spec.timeout_s
        with self._one_call:
            outcomes = self._survive(task, arguments, seconds, 1.0 if tries > 1 else QUICK)

            def again(failed: Sequence[int], seconds: float) -> None:
                found = self._survive(task, [arguments[index] for index in failed], seconds)
                for index, outcome in zip(failed, found, strict=True):
                    outcomes[index] = outcome

            for failed in self._by_themselves(outcomes) if tries == 1 else ():
                again(failed, seconds)
            for more in range(1, tries):
                failed = [index for index, outcome in enumerate(outcomes) if outcome.status != "ok"]
                again(failed, seconds * LONGER**more)
            return outcomes

    def _by_themselves(self, outcomes: Sequence[Outcome]) -> list[list[int]]:
        """The tasks that run again, in groups that run one after the other."""
        half = max(1, worker_count(self._spec) // 2)
        failed = [index for index, outcome in enumerate(outcomes) if outcome.machine]
        late = [index for index in failed if outcomes[index].status == "timeout"]
        groups = [late[start : start + half] for start in range(0, len(late), half)]
        return groups + [[index] for index in failed if index not in late]

    def close(self) -> None:
        """End the workers and wait until they are gone. May be called twice."""
        self._closed = True
        _stop(self._pool)

    def _survive(
        self, task: Callable[..., Any], arguments: Sequence[object], seconds: float, share: float = 1.0
    ) -> list[Outcome]:
        done: dict[int, Outcome] = {}
        breaks = 0
        while True:
            before = len(done)
            try:
                self._run(task, arguments, seconds, share, done)
                return [done[index] for index in range(len(arguments))]
            except RuntimeError as error:
                if self._closed:
                    raise
                breaks = breaks + 1 if len(done) == before else 1
                if breaks == BREAKS:
                    raise RunError(f"the grading workers keep dying: {error}") from error
                _stop(self._pool)
                self._pool = self._start()

    def _run(
        self,
        task: Callable[..., Any],
        arguments: Sequence[object],
        seconds: float,
        share: float,
        done: dict[int, Outcome],
    ) -> None:
        """Add to `done` the outcomes that it lacks, each within `share` of `seconds` of CPU time. Raises RuntimeError,
        of which BrokenProcessPool is one, if the pool breaks; what had come by then is in `done`."""
        wall = seconds * WALL if grading_worker.COUNTS_CPU else seconds
        open_tasks = [index for index in range(len(arguments)) if index not in done]
        futures = [
            self._pool.schedule(grading_worker.within, args=(seconds * share, task, arguments[index]), timeout=wall)
            for index in open_tasks
        ]
        broken: BrokenProcessPool | None = None
        for index, future in zip(open_tasks, futures, strict=True):
            try:
                done[index] = _outcome(future, seconds, wall)
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


def _outcome(future: Future[Any], seconds: float, wall: float) -> Outcome:
    try:
        value = future.result()
    except TimeoutError:
        return Outcome("timeout", f"no verdict within {wall:g} s", machine=True)
    except ProcessExpired as error:
        return _of_dead(error.exitcode, seconds)
    return Outcome("error" if isinstance(value, grading_worker.Failure) else "ok", value)


def _of_dead(code: int, seconds: float) -> Outcome:
    """What became of the task of a worker that ended with exit code `code`, negative for a signal."""
    if grading_worker.COUNTS_CPU and code == -signal.SIGPROF:
        return Outcome("timeout", f"no verdict within {seconds:g} s of CPU time", machine=True)
    if code == grading_worker.OUT_OF_MEMORY:
        limit = grading_worker.MEMORY_BYTES // 2**30
        return Outcome("error", f"MemoryError: more than the {limit} GiB that a verdict may take", machine=True)
    return Outcome("error", f"the worker died (exit code {code})", machine=code == KILLED)


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
