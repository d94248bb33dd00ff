"""What runs inside a grading worker. A worker must not import torch: it is started anew after every timeout."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from typing import Any

from ampo_registry.errors import PluginError
from ampo_registry.protocols import BuildContext, Reward
from ampo_registry.specs import RewardSpec
from ampo_registry.types import Grade

from ampo_core.data.report import TruthCheck
from ampo_core.grading.returned import only_grade, reason
from ampo_core.grading.rows import Parcel, unpacked

MEMORY_BYTES = 4 * 2**30
"""Address space that a worker may take beyond what it had when it was ready."""
OUT_OF_MEMORY = 86
"""Exit code of a worker that reached it."""
COUNTS_CPU = sys.platform != "win32"
"""Whether a deadline here is CPU time."""


class Failure(str):
    """Why a task has no result; crosses the process boundary as a value, so that no exception must be pickled."""


_spec: RewardSpec | None = None
_reward: Reward | None = None
_start_failure = Failure("")


def start(pickled_spec: bytes) -> None:
    """Make this process a worker: build the reward, warm it up on its canaries, then cap its memory.

    A reward that cannot be started is kept as the failure that every task of this worker returns.
    """
    global _spec, _reward, _start_failure
    # Ctrl-C and launchers reach whole process groups; the parent decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        os.setpgrp()
        signal.signal(signal.SIGPROF, signal.SIG_DFL)  # an ignored one would be inherited
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])
    try:
        # Unpickled here and not by multiprocessing, so that a module that is missing here has a name.
        spec: RewardSpec = pickle.loads(pickled_spec)  # noqa: S301 - the parent's own bytes
        reward = spec.build(BuildContext())
        for request, _ in spec.canaries():
            reward.grade([request])
    except BaseException as error:
        _start_failure = Failure(f"the reward cannot be started: {_describe(error)}")
        return
    _limit_memory()
    _spec, _reward = spec, reward


def within(seconds: float, task: Callable[[Any], Any], argument: object) -> Any:
    """`task` of `argument`; the system ends this process by SIGPROF once that has used `seconds` of CPU time, whatever
    code it is in. Where there is no such timer it just runs."""
    if sys.platform == "win32":
        return task(argument)
    signal.setitimer(signal.ITIMER_PROF, min(max(seconds, 1e-3), 1e9))
    try:
        return task(argument)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)


def ready(_: object) -> Failure | None:
    """Whether the reward was started."""
    return _start_failure if _reward is None else None


def grade_one(parcel: Parcel) -> Grade | Failure:
    """The grade of one response."""
    if _reward is None:
        return _start_failure
    try:
        return only_grade(_reward.grade([unpacked(parcel)]))
    except PluginError as error:
        return Failure(str(error))
    except BaseException as error:  # Math-Verify and sympy raise MemoryError and bare BaseExceptions on bad answers
        return _failure(error)


def check_one(truth: str) -> TruthCheck | Failure:
    """What the reward's `check_truth` and, where that accepts, its spec's `note_truth` say."""
    if _reward is None or _spec is None:
        return _start_failure
    try:
        refused = reason(_reward.check_truth(truth), "check_truth")
        if refused is not None:
            return TruthCheck(refused=refused)
        return TruthCheck(listed=reason(_spec.note_truth(truth), "note_truth"))
    except BaseException as error:
        return _failure(error)


def _failure(error: BaseException) -> Failure:
    if isinstance(error, MemoryError):
        os._exit(OUT_OF_MEMORY)  # what caches hold on to now could cost the next answer its verdict
    return Failure(_describe(error))


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500]


def _limit_memory() -> None:
    if sys.platform != "linux":  # elsewhere RLIMIT_AS does not exist or is not kept
        return
    import resource

    import psutil

    limit = psutil.Process().memory_info().vms + MEMORY_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
