"""Keeps a second process out of a run's folder. The lock ends with its process, however that dies."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ampo_registry.errors import ConfigError
from filelock import FileLock, Timeout

LOCK = ".lock"
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
"""What a file system says that knows no locks."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`; while it is held, `.lock` names this process.

    Raises ConfigError if another process holds it. Where the file system knows no locks nothing is held.
    """
    with _taken(folder):
        with suppress(OSError):  # a full disk has no room for the name; it is locked all the same
            (folder / LOCK).write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)


def check_not_held(folder: Path) -> None:
    """Raise ConfigError if another process holds the lock of `folder`."""
    if (folder / LOCK).exists():
        with _taken(folder):
            return


@contextmanager
def _taken(folder: Path) -> Iterator[None]:
    # Not thread-local: what one thread has taken, another may give back. A forked worker closes its copy of the lock.
    lock = FileLock(folder / LOCK, blocking=False, thread_local=False, fallback_to_soft=False)
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
    try:
        return (folder / LOCK).read_text(encoding="utf-8").strip() or "another process"
    except OSError:  # it has ended in this moment
        return "another process"
