"""What rewards measure beside the verdict: `Grade.numbers`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean

from ampo_registry.types import Grade


def mean_numbers(grades: Iterable[Grade]) -> dict[str, float]:
    """The mean of each named number over the grades that have it, by name."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    for grade in grades:
        for name, value in grade.numbers.items():
            values[name].append(value)
    return {name: fmean(found) for name, found in sorted(values.items())}
