"""Token ids and log-probs from the sampler to the learner: one immutable sequence type over bytes.

A tuple of 2,048 token ids and one of their log-probs take 160 KB and half a millisecond to pickle; these take 16 KB and
next to nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Self, TypeVar, cast, overload

from ampo_registry.errors import PluginError

N = TypeVar("N", int, float)
SHOWN = 16


class _Packed(Sequence[N]):
    """Numbers of one machine type, behind one another in memory.

    Made of any iterable of numbers; of an array of that type (array, numpy, a tensor's `numpy()`) without a loop.
    Equal to any sequence of the numbers that it holds, and hashed like the tuple of them.
    Raises PluginError for what is no such number.
    """

    __slots__ = ("_bytes", "_view")
    _code: ClassVar[str]
    _allowed: ClassVar[str]

    def __init__(self, values: Iterable[N] = ()) -> None:
        self._hold(self._packed(values))

    def _hold(self, data: bytes) -> None:
        self._bytes = data
        self._view: memoryview[Any] = memoryview(data).cast(cast(Any, self._code))

    @classmethod
    def _packed(cls, values: Iterable[N]) -> bytes:
        try:
            view = memoryview(cast(Any, values))
            if view.format == cls._code and view.ndim == 1:
                return view.tobytes()
        except TypeError:  # no array
            pass
        try:
            items = list(values)
        except TypeError:
            raise PluginError(f"{cls.__name__}: found {values!r:.80}; wanted a sequence of {cls._allowed}") from None
        try:
            return array(cls._code, cast(Any, items)).tobytes()
        except (TypeError, ValueError, OverflowError):
            raise PluginError(f"{cls.__name__}: {cls._fault(items)}; allowed: {cls._allowed}") from None

    @classmethod
    def _fault(cls, items: Sequence[object]) -> str:
        for number, item in enumerate(items, start=1):
            try:
                array(cls._code, [cast(Any, item)])
            except (TypeError, ValueError, OverflowError):
                return f"number {number} of {len(items)} is {item!r:.80}"
        return f"{items!r:.80}"

    @classmethod
    def of(cls, values: Iterable[N]) -> Self:
        """`values` itself if it is of this type already, else its numbers as this type."""
        return values if isinstance(values, cls) else cls(values)

    @classmethod
    def of_bytes(cls, data: bytes) -> Self:
        """The numbers that `data` holds in this machine's byte order, as `bytes(packed.buffer)` gives them."""
        made = cls.__new__(cls)
        made._hold(data)
        return made

    @property
    def buffer(self) -> memoryview[Any]:
        """The numbers as a read-only buffer, which numpy and torch read without a loop."""
        return self._view

    def __len__(self) -> int:
        return len(self._view)

    @overload
    def __getitem__(self, index: int) -> N: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> N | Self:
        if isinstance(index, slice):
            return self.of_bytes(self._view[index].tobytes())
        return cast(N, self._view[index])

    def __iter__(self) -> Iterator[N]:
        values: list[Any] = self._view.tolist()
        return iter(values)

    def __contains__(self, value: object) -> bool:
        return value in self._view.tolist()

    def __add__(self, other: Iterable[N]) -> Self:
        return self.of_bytes(self._bytes + self.of(other)._bytes)

    def __radd__(self, other: Iterable[N]) -> Self:
        return self.of(other) + self

    def __eq__(self, other: object) -> bool:
        if isinstance(other, type(self)):
            return self._bytes == other._bytes or self._view == other._view
        if not isinstance(other, Sequence) or isinstance(other, str | bytes | bytearray):
            return NotImplemented
        return self._view.tolist() == list(cast(Sequence[object], other))

    def __lt__(self, other: Sequence[N]) -> bool:
        return tuple(self) < tuple(other)

    def __hash__(self) -> int:
        # a view with a NaN does not equal itself, and no tuple
        return hash(tuple(self._view.tolist()) if self._view == self._view else self._bytes)

    def __repr__(self) -> str:
        shown = ", ".join(f"{value:.6g}" if isinstance(value, float) else f"{value}" for value in self[:SHOWN])
        more = f", … {len(self)} in all" if len(self) > SHOWN else ""
        return f"{type(self).__name__}([{shown}{more}])"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).of_bytes, (self._bytes,)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class TokenIds(_Packed[int]):
    """Token ids, int32."""

    __slots__ = ()
    _code = "i"
    _allowed = "whole numbers from -2147483648 to 2147483647"


class LogProbs(_Packed[float]):
    """Log-probs in nats, float32: rounded to it."""

    __slots__ = ()
    _code = "f"
    _allowed = "numbers"
