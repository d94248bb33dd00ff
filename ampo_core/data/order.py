"""The order in which questions are trained on: a pure function of (seed, position), so a resume needs no state."""

from __future__ import annotations

from collections.abc import Sequence

from ampo_registry.errors import ConfigError, DataError

from ampo_core.data.seeds import derive_seed


class QuestionStream:
    """An endless stream of question indices.

    `sizes` holds the number of questions of each file, in the order in which the questions stand. Without
    `weights` an epoch is one pass over all questions; with them each file passes by in epochs of its own and
    `weights` give the files' shares, kept exactly to within one question at every position of the stream.
    Epochs are shuffled anew, from (seed, file, epoch); `shuffle=False` keeps the files' order. The last partial
    batch of an epoch is filled from the next epoch's order, so every batch is full.
    """

    def __init__(
        self, sizes: Sequence[int], *, seed: int, shuffle: bool = True, weights: Sequence[float] | None = None
    ) -> None:
        if sum(sizes) == 0:
            raise DataError("data.train: no question is left to train on")
        if weights is not None and len(weights) != len(sizes):
            raise ConfigError(f"data.weights: {len(weights)} weights for {len(sizes)} files of data.train")
        if weights is not None and 0 in sizes:
            raise DataError(f"data.weights: file {list(sizes).index(0) + 1} of data.train has no question left")
        self._sizes = [sum(sizes)] if weights is None else list(sizes)
        self._shares = [1.0] if weights is None else [weight / sum(weights) for weight in weights]
        self._starts = [sum(self._sizes[:file]) for file in range(len(self._sizes))]
        self._seed, self._shuffle = seed, shuffle
        self._taken = [0] * len(self._sizes)
        self._epochs: dict[int, tuple[int, list[int]]] = {}
        self._stream: list[int] = []

    def take(self, start: int, count: int) -> list[int]:
        """`count` question indices from position `start` (from 0) of the stream on."""
        while len(self._stream) < start + count:
            self._stream.append(self._next())
        return self._stream[start : start + count]

    def _next(self) -> int:
        position = len(self._stream)
        # The file that is furthest behind its share; the first of equals.
        file = max(range(len(self._sizes)), key=lambda f: (self._shares[f] * (position + 1) - self._taken[f], -f))
        epoch, offset = divmod(self._taken[file], self._sizes[file])
        self._taken[file] += 1
        return self._starts[file] + self._epoch_order(file, epoch)[offset]

    def _epoch_order(self, file: int, epoch: int) -> list[int]:
        known = self._epochs.get(file)
        if known is None or known[0] != epoch:
            order = list(range(self._sizes[file]))
            if self._shuffle:
                # Sorted by hash: unlike random.shuffle it is the same in every Python version.
                order.sort(key=lambda index: derive_seed("order", self._seed, file, epoch, index))
            self._epochs[file] = known = (epoch, order)
        return known[1]
