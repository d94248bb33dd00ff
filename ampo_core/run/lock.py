"""Keeps a second process out of a run's folder. The lock ends with its process, however that dies."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ampo_registry.errors import ConfigError
from filelock import FileLock, Timeout

from ampo_core.run.disk import refusal

LOCK = ".lock"
PATIENCE_S = 0.5
"""How long one that finds it held waits: another one may only have looked whether it is."""
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
"""What a file system says that knows no locks."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, made if it is not there; while it is held, `.lock` names this process.

    It comes before the first file of a run, so that of several processes that start at once one makes the folder. If
    it was made here and is left empty, it goes again. Raises ConfigError if another process holds the lock, or the
    folder cannot be made. Where the file system knows no locks nothing is held.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the run folder {folder}: {refusal(folder, error)}") from error
    with _taken(folder):
        with suppress(OSError):  # a full disk has no room for the name; it is locked all the same
            (folder / LOCK).write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)
            if made:
                with suppress(OSError):  # it is not empty
                    folder.rmdir()


def check_not_held(folder: Path) -> None:
    """Raise ConfigError if another process holds the lock of `folder`."""
    if (folder / LOCK).exists():
        with _taken(folder):
            return


@contextmanager
def _taken(folder: Path) -> Iterator[None]:
    # Not thread-local: what one thread has taken, another may give back. A forked worker closes its copy of the lock.
    lock = FileLock(folder / LOCK, timeout=PATIENCE_S, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        message = f"{folder} is in use by {_holder(folder)}: wait until it has ended, or choose another run.name"
        raise ConfigError(message) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    try:
        yield
    finally:
        lock.release()


def _holder(folder: Path) -> str:
    for _ in range(10):  # it has just taken the lock, and its name is still to come
        with suppress(OSError):  # it has ended in this moment
            if name := (folder / LOCK).read_text(encoding="utf-8").strip():
                return name
        time.sleep(0.01)
    return "another process"
