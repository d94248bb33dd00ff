"""Token ids and log-probs from the sampler to the learner: one immutable sequence type over bytes.

A tuple of 2,048 tokens and one of their log-probs take 140 KB and are slow to pickle; these take 16 KB.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar, cast, overload

from ampo_registry.errors import PluginError

N = TypeVar("N", int, float)


class _Packed(Sequence[N], Generic[N]):
    """Numbers of one machine type. Equal to any sequence of numbers that are equal once they are of that type."""

    __slots__ = ("_bytes", "_view")
    code: ClassVar[str]

    def __init__(self, values: Iterable[N] = ()) -> None:
        try:
            packed = array(self.code, cast(Any, values if isinstance(values, Sequence) else list(values)))
        except (TypeError, OverflowError, ValueError) as error:
            raise PluginError(f"{type(self).__name__} cannot hold {values!r:.80}: {error}") from None
        self._take(packed.tobytes())

    def _take(self, data: bytes) -> None:
        self._bytes = data
        self._view: memoryview[Any] = memoryview(data).cast(cast(Any, self.code))

    @classmethod
    def of(cls, values: Iterable[N]) -> Self:
        """`values` itself if it is one already, else one of its numbers."""
        return values if isinstance(values, cls) else cls(values)

    @classmethod
    def of_bytes(cls, data: bytes | bytearray | memoryview[Any]) -> Self:
        """The numbers that `data` holds in this machine's byte order; of an array or tensor without a loop."""
        made = cls.__new__(cls)
        made._take(bytes(data))
        return made

    @property
    def buffer(self) -> memoryview[Any]:
        """The numbers as a read-only buffer."""
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

    def __add__(self, other: Iterable[N]) -> Self:
        return self.of_bytes(self._bytes + self.of(other)._bytes)

    def __radd__(self, other: Iterable[N]) -> Self:
        return self.of(other) + self

    def __eq__(self, other: object) -> bool:
        if isinstance(other, type(self)):
            return self._bytes == other._bytes or self._view == other._view
        if not isinstance(other, Sequence) or isinstance(other, str | bytes) or len(cast(Any, other)) != len(self):
            return NotImplemented if not isinstance(other, Sequence) else False
        try:
            return self == type(self)(cast("Sequence[N]", other))
        except PluginError:
            return False

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        shown = ", ".join(f"{value:g}" for value in self[:6])
        return f"{type(self).__name__}([{shown}{', …' if len(self) > 6 else ''}], {len(self)} in all)"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).of_bytes, (self._bytes,)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class TokenIds(_Packed[int]):
    """Token ids, int32."""

    __slots__ = ()
    code = "i"


class LogProbs(_Packed[float]):
    """Log-probs in nats, float32."""

    __slots__ = ()
    code = "f"
