"""What runs inside a grading worker. A worker must not import torch: it is started anew after every timeout."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from typing import Any

from ampo_registry.protocols import BuildContext
from ampo_registry.specs import RewardSpec
from ampo_registry.types import Grade

from ampo_core.checked.call import Asked, PluginFault
from ampo_core.data.report import TruthCheck
from ampo_core.grading.returned import canaries_of, grade_of, truth_check, unverified
from ampo_core.grading.rows import Parcel, unpacked

MEMORY_BYTES = 4 * 2**30
"""Address space that a worker may take beyond what it had when it was ready."""
OUT_OF_MEMORY = 86
"""Exit code of a worker that reached it."""
COUNTS_CPU = sys.platform != "win32"
"""Whether a deadline here is CPU time."""


class Failure(str):
    """Why a task has no result; crosses the process boundary as a value, so that no exception must be pickled."""


class Broken(Failure):
    """The failure of a reward that returned what none may."""


_spec: Asked | None = None
_reward: Asked | None = None
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
        asked = Asked.of(spec)
        reward = Asked.of(spec, asked.ask("build", BuildContext()))
        for request, _ in canaries_of(asked):
            reward.ask("grade", [request])
    except BaseException as error:
        _start_failure = Failure(f"the reward cannot be started: {_describe(error)}")
        return
    _limit_memory()
    _spec, _reward = asked, reward


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
        return grade_of(_reward, unpacked(parcel))
    except BaseException as error:  # Math-Verify and sympy raise MemoryError and bare BaseExceptions on bad answers
        return _failure(error)


def unverified_one(text: str) -> Grade | Failure:
    """What a response earns that has no verdict."""
    if _spec is None:
        return _start_failure
    try:
        return unverified(_spec, text)
    except BaseException as error:
        return _failure(error)


def check_one(truth: str) -> TruthCheck | Failure:
    """What the reward says of a ground truth."""
    if _reward is None or _spec is None:
        return _start_failure
    try:
        return truth_check(_reward, _spec, truth)
    except BaseException as error:
        return _failure(error)


def _failure(error: BaseException) -> Failure:
    if isinstance(error.__cause__ or error, MemoryError):
        os._exit(OUT_OF_MEMORY)  # what caches hold on to now could cost the next answer its verdict
    wrong = isinstance(error, PluginFault) and error.__cause__ is None
    return Broken(error) if wrong else Failure(_describe(error))


def _describe(error: BaseException) -> str:
    return (str(error) if isinstance(error, PluginFault) else f"{type(error).__name__}: {error}")[:1000]


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
