"""A process that ends with the one that started it. Imports nothing that takes time: it must come before all else."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_SET_PARENT_DEATH_SIGNAL = 1


def end_with_parent(parent: int | None = None) -> None:
    """Have the kernel end this process if the one that started it is killed: a run must not go on unseen.

    `parent` is the process id of that one, as it said itself, so that it may have been killed before this call; None
    for whatever is the parent now.
    """
    parent = os.getppid() if parent is None else parent
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
