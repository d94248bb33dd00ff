"""Keeps a second process out of a run's folder. The lock ends with its process, however that dies."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ampo_registry.errors import ConfigError

LOCK = ".lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`; while it is held, `.lock` names this process.

    Raises ConfigError if another process holds it. Where the file system knows no locks nothing is held.
    """
    path = folder / LOCK
    with path.open("a+", encoding="utf-8") as file:
        if not _acquired(file.fileno(), fcntl.LOCK_EX):
            raise ConfigError(_in_use(folder))
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def check_not_held(folder: Path) -> None:
    """Raise ConfigError if another process holds the lock of `folder`."""
    if not (folder / LOCK).exists():
        return
    with (folder / LOCK).open(encoding="utf-8") as file:
        if not _acquired(file.fileno(), fcntl.LOCK_SH):
            raise ConfigError(_in_use(folder))


def _acquired(descriptor: int, how: int) -> bool:
    # lockf, not flock: a forked worker that outlives its parent must not go on holding the lock.
    try:
        fcntl.lockf(descriptor, how | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True


def _in_use(folder: Path) -> str:
    holder = (folder / LOCK).read_text(encoding="utf-8").strip() or "another process"
    return f"{folder} is in use by {holder}: wait until it has ended, or choose another run.name"
