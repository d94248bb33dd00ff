"""Jobs side by side, each an `ampo-run` of its own whose output goes into a log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from ampo_registry.errors import ConfigError

from ampo_core.config.machines import visible_gpus

LAST_LINES = 12
ENDING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def _signals_after() -> Iterator[None]:
    """A block that a signal to end waits for: a process that is started in it must be known before, or it would be
    left alone."""
    waiting: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.signal(number, lambda got, _: waiting.append(got)) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    if waiting:
        signal.raise_signal(waiting[0])


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that has ended: what it was started as, its exit code and where its output lies."""

    key: str
    code: int
    log: Path

    def last_words(self) -> str:
        """The end of its output."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:])


@dataclass(frozen=True, slots=True)
class _Running:
    key: str
    process: subprocess.Popen[bytes]
    log: Path
    unread: BinaryIO
    """Its log from where its output begins."""


class Processes:
    """At most one process for each of `places`, the environments that they run in.

    A context manager: what still runs when it is left is told to end, and waited for. `tell` gets every line that they
    print, with the key of its process.
    """

    def __init__(
        self,
        places: Sequence[Mapping[str, str]],
        options: Sequence[str],
        tell: Callable[[str, str], None] | None = None,
    ) -> None:
        self._options = list(options)
        self._running: dict[int, _Running] = {}
        self._environments = list(places)
        self._tell = tell

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for running in self._running.values():
            running.process.send_signal(signal.SIGTERM)
        for running in self._running.values():
            running.process.wait()
        for running in self._running.values():
            self._read(running)
            running.unread.close()

    @property
    def free(self) -> bool:
        """True if another one may start."""
        return len(self._running) < len(self._environments)

    @property
    def told(self) -> bool:
        """True if their output is shown."""
        return self._tell is not None

    @property
    def idle(self) -> bool:
        """True if none runs."""
        return not self._running

    def start(self, key: str, arguments: Sequence[str], log: Path) -> None:
        """Run `ampo-run ARGUMENTS`, its output at the end of `log`. It ends with this process, however that ends."""
        place = next(i for i in range(len(self._environments)) if i not in self._running)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output, _signals_after():
            # Out of reach of a terminal's Ctrl-C: it is passed on once, by this process.
            process = subprocess.Popen(
                [sys.executable, "-m", "ampo_core.cli.member", str(os.getpid()), *arguments, *self._options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environments[place],
                start_new_session=True,
            )
            unread = log.open("rb")
            unread.seek(output.tell())
            self._running[place] = _Running(key, process, log, unread)

    def ended(self) -> list[Ended]:
        """Those that have ended since the last call. What all of them have printed since is told before."""
        found = []
        for place, running in list(self._running.items()):
            code = running.process.poll()
            self._read(running)
            if code is not None:
                running.unread.close()
                del self._running[place]
                found.append(Ended(running.key, code, running.log))
        return found

    def _read(self, running: _Running) -> None:
        """Tell of the lines that are whole."""
        while self._tell is not None:
            start, line = running.unread.tell(), running.unread.readline()
            if not line.endswith(b"\n"):
                running.unread.seek(start)
                return
            self._tell(running.key, line.decode("utf-8", errors="replace").rstrip())


def environments(parallel: int, environ: Mapping[str, str]) -> list[dict[str, str]]:
    """The environment of each of `parallel` places: as many of the visible GPUs each, the first ones first.

    Raises ConfigError if there are GPUs, but fewer than places.
    """
    count = visible_gpus(environ)
    if not count or parallel == 1:
        return [dict(environ) for _ in range(parallel)]
    if count < parallel:
        raise ConfigError(f"parallel: found {parallel}, but this machine shows {count} GPU(s); use at most as many")
    shown = environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in shown.split(",")] if shown else [str(i) for i in range(count)]
    share = count // parallel
    return [
        {**environ, "CUDA_VISIBLE_DEVICES": ",".join(names[place * share : (place + 1) * share])}
        for place in range(parallel)
    ]
