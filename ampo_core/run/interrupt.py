"""SIGTERM and Ctrl-C. A training loop finishes its step and writes a checkpoint; everything else ends at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Self

import psutil
from ampo_registry.errors import AmpoError
from ampo_registry.faults import Signalled

INTERRUPTED = 3
"""The exit code of a run that was interrupted and can go on."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(AmpoError):
    """The run was stopped by a signal after it had written a checkpoint; the text says where, and how to go on."""

    exit_code = INTERRUPTED

    @classmethod
    def after(cls, step: int, checkpoint: Path) -> Self:
        """Stopped after `step`, which `checkpoint` holds."""
        return cls(f"stopped after step {step}, whose checkpoint is {checkpoint}\nRun the same command again to go on")


class Interrupt:
    """While this context lasts, a first SIGTERM or SIGINT sets `requested`, and a second ends the process at once.

    A loop asks `ranks.any(interrupt.requested)` after each step, for a signal may reach one rank only. The first
    signal is told of on rank 0 of a run that nobody watches over. Outside the main thread, where Python allows no
    handlers, it never asks for anything.
    """

    def __init__(self) -> None:
        self.requested = False
        self._quiet = _is_watched()
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._previous = _install(self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        _restore(self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            end_now()
        self.requested = True
        if not self._quiet:
            say_stopping(number)


def say_stopping(number: int) -> None:
    """Tell a person what becomes of the signal `number`."""
    name = signal.Signals(number).name
    sys.stderr.write(
        f"\nampo-run: {name}: a training step that runs is finished first and a checkpoint written; "
        "a second signal ends at once\n"
    )
    sys.stderr.flush()


def end_now() -> None:
    """End this process and all it has started, with exit code 3 and without any cleaning up."""
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    os._exit(INTERRUPTED)


@contextmanager
def terminating() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, as SIGINT does, so that a run which is told to end says so and cleans up.

    A second signal ends the process at once, however far that has come.
    """
    raised = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal raised
        if raised:
            end_now()
        raised = True
        raise Signalled

    previous = _install(handle)
    try:
        yield
    finally:
        _restore(previous)


@contextmanager
def handling(handler: Callable[[int], None]) -> Iterator[None]:
    """Call `handler` with the number of each SIGTERM and SIGINT."""
    previous = _install(lambda number, frame: handler(number))
    try:
        yield
    finally:
        _restore(previous)


def _install(handler: Callable[[int, FrameType | None], None]) -> dict[signal.Signals, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in SIGNALS}


def _restore(previous: dict[signal.Signals, Any]) -> None:
    for number, handler in previous.items():
        # None: a handler that was not installed from Python, which cannot be put back
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _is_watched() -> bool:
    """True in a rank whose signals come from the process that started it, and in all ranks but the first."""
    return "AMPO_LAUNCHED" in os.environ or os.environ.get("RANK", "0") != "0"
