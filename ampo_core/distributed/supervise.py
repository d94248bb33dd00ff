"""Watches over ranks that were started: passes signals on, ends what a dead rank leaves waiting, says what happened."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import psutil
from ampo_registry.errors import AmpoError, RunError

from ampo_core.distributed.outcome import Outcome, outcomes, processes
from ampo_core.run.interrupt import end_now, handling, say_stopping

POLL_S = 0.1
GRACE_S = 5.0
"""How long the other ranks have to end by themselves once one has failed: they may wait for it for ever."""
LEFTOVERS_S = 2.0
"""How long what ranks have started may outlive them."""
_CONSEQUENCES = (signal.SIGTERM, signal.SIGINT, signal.SIGABRT)
"""Signals by which a rank ends because another has: the launcher's, and the communication library's own abort."""


class Starter(Protocol):
    """A way to start ranks that run `ampo_core.cli.rank`. `local`: all on this machine, each leading a session."""

    @property
    def local(self) -> bool: ...

    def start(self) -> None:
        """Start them; returns at once."""

    def wait(self, seconds: float) -> bool:
        """Wait at most so long for all of them to end; True if they have."""

    def exit_codes(self) -> Mapping[int, int | None]:
        """rank -> exit code of those that did not end well, None if it is not known; once `wait` was True.

        Raises RunError if they could not be started.
        """

    def signal(self, rank: int, pid: int, number: signal.Signals) -> None:
        """Send a signal to a rank."""

    def last_words(self, rank: int) -> str:
        """The end of what `rank` has written to a stderr that nobody saw; empty if there is none."""


def supervise(starter: Starter, folder: Path) -> None:
    """Start ranks and stay until they have ended.

    The first SIGTERM or SIGINT is passed on to every rank, and they get all the time they need; a second ends them.
    Raises what ended the run, see `verdict`.
    """
    watch = _Watch(starter, folder)
    with handling(watch.signalled):
        starter.start()
        try:
            while not starter.wait(POLL_S):
                watch.look()
        finally:
            watch.clear()
    error = verdict(outcomes(folder), starter.exit_codes(), watch.killed, watch.signals > 0)
    if error is None:
        return
    _show_cursor()
    words = starter.last_words(error.rank) if isinstance(error, Unexplained) else ""
    raise RunError(f"{error}; the end of what it said:\n{words}") if words else error


class Unexplained(RunError):
    """A rank ended badly and left no word why. `code` is its exit code, negative for a signal, None if unknown."""

    def __init__(self, rank: int, code: int | None) -> None:
        self.rank = rank
        how = "ended without a word" if code is None else f"ended with exit code {code}"
        if code is not None and code < 0:
            hint = " (which often means that the machine ran out of memory)" if code == -signal.SIGKILL else ""
            how = f"was ended by {_signal_name(-code)}{hint}"
        super().__init__(f"rank {rank} {how}; the other ranks were stopped")


def verdict(
    said: Mapping[int, Outcome], codes: Mapping[int, int | None], killed: frozenset[int], signalled: bool
) -> AmpoError | KeyboardInterrupt | None:
    """What ended a run, or None if it ended well.

    `said` are the outcomes by rank, `codes` the exit codes that are not 0, `killed` the ranks that were ended from
    here, `signalled` whether a signal was passed on. A rank that was killed goes first, for it leaves the others with
    broken connections; then an interruption that was asked for; then the first of all errors, lost connections last.
    """
    silent = {rank: code for rank, code in codes.items() if rank not in said and rank not in killed}
    crashed = [rank for rank, code in silent.items() if code is not None and code < 0 and -code not in _CONSEQUENCES]
    if crashed:
        return Unexplained(crashed[0], silent[crashed[0]])
    failed = sorted((rank for rank in said if said[rank].kind != "done"), key=lambda rank: said[rank].time)
    interrupted = [said[rank] for rank in failed if said[rank].kind == "interrupted"]
    if signalled and (interrupted or killed):
        return _interruption(interrupted)
    errors = [rank for rank in failed if said[rank].kind in ("error", "fault")]
    if errors:
        return _first_error(errors[0], said)
    wrong = [rank for rank, code in silent.items() if code not in (-signal.SIGTERM, -signal.SIGINT)]
    if wrong and not signalled:
        return Unexplained(wrong[0], silent[wrong[0]])
    lost = [rank for rank in failed if said[rank].kind == "lost"]
    if lost:
        return _first_error(lost[0], said)
    if interrupted or (signalled and codes):
        return _interruption(interrupted)
    return Unexplained(*next(iter(codes.items()))) if codes else None


def _interruption(interrupted: Sequence[Outcome]) -> AmpoError | KeyboardInterrupt:
    """What to say of ranks that a signal has ended: where the checkpoint is, if one of them has seen it written."""
    orderly = [outcome for outcome in interrupted if outcome.text]
    return orderly[0].as_error(orderly[0].text) if orderly else KeyboardInterrupt()


def _first_error(rank: int, said: Mapping[int, Outcome]) -> AmpoError:
    """The error of `rank`, which is named unless the first rank has met the same."""
    text = said[rank].text
    alone = rank != 0 and (0 not in said or said[0].text != text)
    return said[rank].as_error(f"rank {rank}: {text}" if alone else text)


class _Watch:
    """What is known of the ranks while they run."""

    def __init__(self, starter: Starter, folder: Path) -> None:
        self.signals = 0
        self.killed: frozenset[int] = frozenset()
        self._starter, self._folder = starter, folder
        self._pids: dict[int, int] = {}
        self._told: set[int] = set()
        self._ended: set[int] = set()
        self._failed_at: float | None = None

    def signalled(self, number: int) -> None:
        """A signal has come; `look` does what it asks for."""
        self.signals += 1
        if self.signals == 1:
            say_stopping(number)

    def look(self) -> None:
        """Pass a signal on to the ranks that have not heard of it; end all if one has failed and others stay."""
        self._pids = processes(self._folder)
        if self.signals:
            for rank in self._pids.keys() - self._told:
                self._told.add(rank)
                self._starter.signal(rank, self._pids[rank], signal.SIGINT)
        if self.signals > 1:
            self._kill()
            if not self._pids:  # nor is a rank known that could tell when it starts
                shutil.rmtree(self._folder, ignore_errors=True)
                end_now()
        elif self._has_failed():
            self._failed_at = self._failed_at or time.monotonic()
            if time.monotonic() - self._failed_at > GRACE_S:
                self._kill()

    def clear(self) -> None:
        """End what ranks on this machine have started and left behind."""
        deadline = time.monotonic() + LEFTOVERS_S
        while (left := self._members()) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        _kill_all(left)

    def _has_failed(self) -> bool:
        said = outcomes(self._folder)
        if any(outcome.kind in ("error", "fault", "lost") for outcome in said.values()):
            return True
        gone = filter(self._is_gone, self._pids)
        return any(rank not in said or said[rank].kind != "done" for rank in gone)

    def _is_gone(self, rank: int) -> bool:
        """True if the rank has ended; nothing is known of other machines."""
        return self._starter.local and not _is_alive(self._pids[rank])

    def _kill(self) -> None:
        said = outcomes(self._folder)
        for rank in self._pids.keys() - self._ended:
            self._ended.add(rank)
            if rank not in said and not self._is_gone(rank):
                self.killed |= {rank}
            self._starter.signal(rank, self._pids[rank], signal.SIGKILL)
        _kill_all(self._members())

    def _members(self) -> list[psutil.Process]:
        """What runs of the sessions of ranks on this machine."""
        return _members(set(self._pids.values())) if self._starter.local else []


def _is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _members(sessions: set[int]) -> list[psutil.Process]:
    """The processes of these sessions that still run; each rank of torch elastic leads a session of its own."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) in sessions and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, PermissionError, psutil.Error):
            continue
    return found


def _kill_all(targets: list[psutil.Process]) -> None:
    for process in targets:
        try:
            process.kill()
        except psutil.Error:
            continue


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _show_cursor() -> None:
    """A rank that was killed in the middle of a progress bar has left the terminal without a cursor."""
    if sys.stdout.isatty():
        sys.stdout.write("\x1b[?25h")
        sys.stdout.flush()
