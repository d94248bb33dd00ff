"""Acts that ranks take together: if one of them fails, all of them hear of it, and none waits for the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ampo_registry.errors import ConfigError, RunError

from ampo_core.distributed.ranks import Ranks

T = TypeVar("T")


def by_first(ranks: Ranks, act: Callable[[], T]) -> T:
    """What `act` returns on rank 0, which alone calls it, on every rank. It must be something that can be pickled.

    An error of rank 0 is raised on all: there as it is, elsewhere as a ConfigError or RunError with its text.
    """
    value: T | None = None
    error: Exception | None = None
    if ranks.rank == 0:
        try:
            value = act()
        except Exception as caught:
            error = caught
    said = ranks.first((value, _said(error)))
    if error is not None:
        raise error
    _raise(said[1])
    return said[0]  # type: ignore[return-value]


def by_each(ranks: Ranks, act: Callable[[], None]) -> None:
    """`act` on every rank; it must not be collective. If it fails on one, all ranks raise an error."""
    error: Exception | None = None
    try:
        act()
    except Exception as caught:
        error = caught
    said = ranks.each(_said(error))
    if error is not None:
        raise error
    for one in said:
        _raise(one)


def _said(error: Exception | None) -> tuple[bool, str] | None:
    return None if error is None else (isinstance(error, ConfigError), str(error))


def _raise(said: tuple[bool, str] | None) -> None:
    if said is not None:
        raise (ConfigError if said[0] else RunError)(said[1])
