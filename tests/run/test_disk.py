"""What the system refuses to write: what is said of it, and what is left."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ampo_registry import RunError
from safetensors import SafetensorError

from ampo_core.run import disk
from ampo_core.run.disk import mount_of, refusal, speaking, writing
from ampo_core.run.files import append_lines, keep_lines, write_atomically

AGAIN = "free some space there, then run the same command again"
needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")


def refuse(code: int) -> Callable[..., None]:
    def call(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return call


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, f"free): {AGAIN}"),
        (errno.EDQUOT, "the quota on the file system at MOUNT is used up"),
        (errno.EROFS, "the file system at MOUNT is read-only"),
        (errno.EACCES, "this user may not write there"),
        (errno.EPERM, "the system does not permit it"),
        (errno.EMFILE, "as many files open as it may: raise `ulimit -n`"),
        (errno.ENFILE, "the system has as many files open as it can"),
        (errno.EFBIG, "a file may not become so large: raise `ulimit -f`"),
        (errno.EIO, "the disk has reported an error"),
        (errno.EBUSY, os.strerror(errno.EBUSY)),
    ],
)
def test_refusals_say_what_and_what_to_do(tmp_path: Path, code: int, said: str) -> None:
    path = tmp_path / "not" / "there"
    text = refusal(path, OSError(code, os.strerror(code)))
    assert said.replace("MOUNT", str(mount_of(tmp_path))) in text
    with pytest.raises(RunError, match=r"cannot write .*there: "), writing(path):
        refuse(code)()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 3249856 vs 3249744"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        OSError(errno.ENOSPC, "Error writing bytes to file"),
    ],
)
def test_what_libraries_raise_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(disk, "_probe", lambda path: errno.ENOSPC)
    half, folder = tmp_path / "half", tmp_path / "halves"
    half.write_text("x")
    (folder / "more").mkdir(parents=True)
    with pytest.raises(RunError) as caught, writing(tmp_path / "policy", half, folder, hint=lambda: ". It was large"):
        raise error
    assert f"cannot write {tmp_path / 'policy'}: the file system at {mount_of(tmp_path)} is full (" in str(caught.value)
    assert str(caught.value).endswith(f"free): {AGAIN}. It was large")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_are_not_the_disks(tmp_path: Path) -> None:
    for error in (RuntimeError("CUDA out of memory"), ValueError("no"), RunError("said already")):
        (tmp_path / "half").write_text("x")
        with pytest.raises(type(error), match=str(error)), writing(tmp_path, tmp_path / "half"):
            raise error
        assert not (tmp_path / "half").exists()


@needs_dev_full
def test_lines_that_find_no_room(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"cannot write .*metrics\.jsonl: the file system at .* is full"):
        append_lines(path, [{"step": 1}])


def test_a_file_that_finds_no_room_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "latest"
    write_atomically(path, "old\nlines\n")
    monkeypatch.setattr(os, "fsync", refuse(errno.ENOSPC))
    with pytest.raises(OSError, match=r"No space left on device: '.*latest'"):
        write_atomically(path, "new\n")
    with pytest.raises(RunError, match=r"cannot write .*latest: the file system at .* is full"):
        keep_lines(path, [(0, 4)])
    assert [(item.name, item.read_text()) for item in tmp_path.iterdir()] == [("latest", "old\nlines\n")]


def test_a_job_speaks_of_the_file_that_the_system_names_or_of_the_place_that_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = OSError(errno.EROFS, "Read-only file system", str(tmp_path / "x.json"))
    with pytest.raises(RunError, match=r"x\.json: the file system at .* is read-only"), speaking(tmp_path / "run"):
        raise named
    elsewhere = tmp_path / "shm"
    elsewhere.mkdir()
    monkeypatch.setattr(disk, "_SHARED_MEMORY", elsewhere)
    monkeypatch.setattr(disk, "_probe", lambda path: errno.ENOSPC if path == elsewhere else None)
    monkeypatch.setattr(disk, "mount_of", lambda path: path)
    with pytest.raises(RunError, match=rf"run: the file system at {elsewhere} is full"), speaking(tmp_path / "run"):
        refuse(errno.ENOSPC)()
    with pytest.raises(FileNotFoundError), speaking(tmp_path):
        (tmp_path / "nothing").read_text()
