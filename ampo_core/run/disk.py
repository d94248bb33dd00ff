"""What the system refuses to write, in words that say what is full and what to do."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ampo_registry.errors import RunError

FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSALS = {
    errno.EROFS: "the file system at {mount} is read-only: choose another place, or have it mounted for writing",
    errno.EACCES: "this user may not write there: change its permissions, or choose another place",
    errno.EPERM: "the system does not permit it: look at the permissions there, or choose another place",
    errno.EMFILE: "this process has as many files open as it may: raise `ulimit -n`",
    errno.ENFILE: "the system has as many files open as it can: close some, or raise fs.file-max",
    errno.EFBIG: "a file may not become so large: raise `ulimit -f`, or take a file system that allows it",
    errno.EIO: "the disk has reported an error: look at the system's log, and save what is there",
    errno.ESTALE: "the network file system at {mount} has lost it: mount it anew",
    errno.ENAMETOOLONG: "the name is longer than the file system at {mount} allows: choose a shorter one",
}
AGAIN = "then run the same command again"
_SHARED_MEMORY = Path("/dev/shm")
_PROBE_BYTES = 2**20
_OF_RUST = re.compile(r"\(os error (\d+)\)")
_OF_PYTORCH = re.compile(r"inline_container|Parent directory .* does not exist|cannot be opened")


@contextmanager
def writing(path: Path, *halves: Path, hint: Callable[[], str] = str) -> Iterator[None]:
    """Let what the system refuses inside be a RunError about `path`, whose text ends with `hint`.

    `halves` are files and folders that hold a part of it after any error: they are removed, so that they take no room.
    """
    try:
        yield
    except Exception as error:
        text = refusal(path, error) if _is_of_disk(error) else None
        for half in halves:
            remove(half)
        if text is None:
            raise
        raise RunError(f"cannot write {path}: {text}{hint()}") from error


def remove(half: Path) -> None:
    """Remove a file or a folder, as far as the system lets it go."""
    if half.is_dir():
        shutil.rmtree(half, ignore_errors=True)
    else:
        with suppress(OSError):
            half.unlink(missing_ok=True)


@contextmanager
def speaking(folder: Path) -> Iterator[None]:
    """Let what the system refuses inside be a RunError, about the file that it names or else `folder`.

    Other errors, those that a program makes with files among them, pass as they are.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (*FULL, *REFUSALS):
            raise
        named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
        text = _elsewhere(folder, error) if named is None else refusal(named, error)
        raise RunError(f"{named or folder}: {text}") from error


def refusal(path: Path, error: BaseException) -> str:
    """Why `path` could not be written, and what to do.

    Libraries that write for themselves say little (PyTorch: "unexpected pos 3249856"): then the system is asked by
    writing a little there.
    """
    code = _code(error)
    if code is None:
        code = _probe(path)
    if code in FULL:
        return _full(path, code)
    if code in REFUSALS:
        return REFUSALS[code].format(mount=mount_of(path))
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def mount_of(path: Path) -> Path:
    """Where the file system is mounted on which `path` lies, or would lie."""
    place = _nearest(path)
    while not place.is_mount() and place != place.parent:
        place = place.parent
    return place


def size_of(folder: Path) -> int:
    """Bytes of all files in `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def readable(count: int) -> str:
    """A number of bytes to read: 512 B, 3.1 MiB."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def _full(path: Path, code: int | None) -> str:
    mount, place = mount_of(path), _nearest(path)
    usage = shutil.disk_usage(place)
    free = f"{readable(usage.free)} of {readable(usage.total)} free"
    if code == errno.EDQUOT:
        return f"the quota on the file system at {mount} is used up ({free} to all): free some of it, {AGAIN}"
    if sys.platform != "win32" and (stat := os.statvfs(place)).f_files and not stat.f_favail:
        return f"the file system at {mount} can hold no more files ({free}): remove some, {AGAIN}"
    return f"the file system at {mount} is full ({free}): free some space there, {AGAIN}"


def _elsewhere(folder: Path, error: OSError) -> str:
    """The refusal where the system names no file: it may be another place that is full."""
    places = (folder, Path(tempfile.gettempdir()), _SHARED_MEMORY)
    full = [place for place in places if place.exists() and _probe(place) in FULL]
    return refusal(full[0] if full else folder, error)


def _is_of_disk(error: Exception) -> bool:
    """Whether `error` is the system's, or one of a library that writes for itself."""
    of_library = type(error).__name__ == "SafetensorError" or _OF_PYTORCH.search(str(error)) is not None
    return isinstance(error, OSError) or of_library


def _code(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _OF_RUST.search(str(error))
    return int(found[1]) if found else None


def _probe(path: Path) -> int | None:
    """What the system says to a MiB more beside `path`; None if it takes it."""
    try:
        with tempfile.TemporaryFile(dir=_nearest(path)) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno
    return None


def _nearest(path: Path) -> Path:
    """The nearest folder that is there: `path` or one above it."""
    place = path.absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    return place
