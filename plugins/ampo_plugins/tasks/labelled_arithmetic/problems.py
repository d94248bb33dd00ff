"""Questions of the world: a two-digit start and n labelled operations, printed in shuffled order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

LABELS = "ABCDEF"
SIGNS = "+-*"
MODULUS = 100
MAX_MISSES = 1000
"""So many draws in a row without a new question mean that a level is used up."""
OPERANDS = {"+": range(1, 6), "-": range(1, 6), "*": range(2, 4)}


@dataclass(frozen=True, slots=True)
class Operation:
    """One labelled operation, e.g. `C*2`."""

    label: str
    sign: str
    operand: int

    def __str__(self) -> str:
        return f"{self.label}{self.sign}{self.operand}"

    def apply(self, value: int) -> int:
        """The value afterwards, modulo 100."""
        results = {"+": value + self.operand, "-": value - self.operand, "*": value * self.operand}
        return results[self.sign] % MODULUS


@dataclass(frozen=True, slots=True)
class Problem:
    """`operations` stand in label order; `printed` is the order in which the question shows them."""

    start: int
    operations: tuple[Operation, ...]
    printed: tuple[int, ...]

    @property
    def level(self) -> int:
        """The number of operations."""
        return len(self.operations)

    @property
    def text(self) -> str:
        """The question, e.g. `37C*2A+5B-3?`."""
        return two_digits(self.start) + "".join(str(self.operations[i]) for i in self.printed) + "?"

    @property
    def values(self) -> tuple[int, ...]:
        """The value after each operation; the last one is the answer."""
        values: list[int] = []
        value = self.start
        for operation in self.operations:
            value = operation.apply(value)
            values.append(value)
        return tuple(values)

    @property
    def answer(self) -> str:
        """Two digits: 7 is written `07`, which the verifier takes for the same integer."""
        return two_digits(self.values[-1])


def two_digits(value: int) -> str:
    """`value` (0..99) with a leading zero where it has one digit."""
    return f"{value:02d}"


def draw_problem(level: int, rng: Random) -> Problem:
    """A random problem with `level` operations, under any of the labels.

    So every label occurs on every level: what is learnt on short questions can be put to use on long ones.
    """
    labels = sorted(rng.sample(LABELS, level))
    signs = [rng.choice(SIGNS) for _ in labels]
    operations = tuple(
        Operation(label, sign, rng.choice(OPERANDS[sign])) for label, sign in zip(labels, signs, strict=True)
    )
    return Problem(rng.randrange(10, MODULUS), operations, tuple(rng.sample(range(level), level)))


def draw_distinct(level: int, count: int, rng: Random, taken: set[str]) -> list[Problem]:
    """`count` problems of one level whose texts are not in `taken`; their texts are added to it.

    Raises ValueError if the level has too few questions for that.
    """
    problems: list[Problem] = []
    misses = 0
    while len(problems) < count:
        problem = draw_problem(level, rng)
        if problem.text in taken:
            misses += 1
            if misses == MAX_MISSES:
                raise ValueError(f"level {level} has too few distinct questions for {count} more; ask for fewer")
            continue
        misses = 0
        taken.add(problem.text)
        problems.append(problem)
    return problems


def split_by_share(total: int, shares: Mapping[int, float]) -> dict[int, int]:
    """`total` divided by `shares` into whole numbers that add up to it (largest remainders first)."""
    whole = sum(shares.values())
    exact = {key: total * share / whole for key, share in shares.items()}
    counts = {key: int(value) for key, value in exact.items()}
    by_remainder = sorted(exact, key=lambda key: (counts[key] - exact[key], key))
    for key in by_remainder[: total - sum(counts.values())]:
        counts[key] += 1
    return counts
