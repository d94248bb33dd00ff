"""What observers are told of a run that learns nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunWarning:
    """Something that shows that a run learns nothing: its `kind`, what was seen, and which keys to look at.

    It was seen in `steps` steps from `first` to `last`, which are 0 in an evaluate job.
    """

    kind: str
    what: str
    look: str
    first: int
    last: int
    steps: int

    def __str__(self) -> str:
        """A sentence for a person."""
        many = f"steps {self.first} to {self.last}"
        if self.steps != self.last - self.first + 1:
            many += f" ({self.steps} of them)"
        where = f"{many}: " if self.last > self.first else f"step {self.last}: " if self.last else ""
        return f"{where}{self.what}; look at {self.look}"
