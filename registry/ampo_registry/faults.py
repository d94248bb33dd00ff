"""What a plugin's code raised, in words: the error, and the line of the plugin that it came from."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence

_OURS = ("ampo_registry", "ampo_core", "pydantic", "typing", "abc", "builtins")
"""Modules whose classes a plugin's class may derive from without being theirs."""


class Signalled(KeyboardInterrupt):
    """What the handler of a signal raises: an interruption that a person or a scheduler has asked for."""


def is_interruption(error: BaseException) -> bool:
    """True for what a signal raised; a KeyboardInterrupt that a plugin raises by itself is a fault like others.

    Under Python's own handler of Ctrl-C the two cannot be told apart: there it is taken for a signal.
    """
    if isinstance(error, Signalled):
        return True
    return isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def describe(error: BaseException) -> str:
    """Type and text of `error` in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def own_paths(owner: type) -> tuple[str, ...]:
    """Files and folders of the code of the class `owner`: the packages that it and its bases come from, the registry's
    apart."""
    found: dict[str, None] = {}
    for base in owner.__mro__:
        root = base.__module__.partition(".")[0]
        module = sys.modules.get(root)
        if root in _OURS or module is None:
            continue
        folders = list(getattr(module, "__path__", ()))
        found |= dict.fromkeys(map(os.path.realpath, folders or [getattr(module, "__file__", None) or ""]))
    return tuple(path for path in found if path)


def place_of(error: BaseException, own: Sequence[str] = ()) -> str:
    """file:line of the innermost frame of `error`, without those of the import machinery; with `own`, of those in these
    files and folders. Empty where there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    if own:
        frames = [frame for frame in frames if is_in(frame.filename, own)]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def is_in(file: str, own: Sequence[str]) -> bool:
    """True if `file` is one of the files `own`, or lies in one of the folders."""
    path = os.path.realpath(file)
    return any(path == one or path.startswith(one + os.sep) for one in own)
