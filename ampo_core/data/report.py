"""What loading did to the rows: nothing is dropped without being counted here."""

from __future__ import annotations

from dataclasses import dataclass

SHOWN = 50


@dataclass(frozen=True, slots=True)
class FileReport:
    """A data file: its SHA-256 (hex), its rows, and how many questions of it are left."""

    path: str
    sha256: str
    rows: int
    questions: int


@dataclass(frozen=True, slots=True)
class RefusedTruth:
    """A row left out because no response could be verified against its ground truth."""

    file: str
    row: int
    truth: str
    reason: str


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Counts of one load. `rows` is what the files hold, `selected` what `where` left of it;

    selected = questions + refused truths + repeats_dropped + overlong_dropped + beyond_limit. `distinct` counts
    the different questions among `questions`, and `duplicates` the others (0 where `distinct` was asked for);
    `overlong_cut` are questions whose prompt lost its first tokens.
    """

    files: tuple[FileReport, ...]
    rows: int
    selected: int
    questions: int
    distinct: int
    duplicates: int
    repeats_dropped: int
    overlong_dropped: int
    overlong_cut: int
    beyond_limit: int
    refused: tuple[RefusedTruth, ...]

    def lines(self) -> list[str]:
        """The report for a person: a line of counts, then one for each refused ground truth, at most SHOWN."""
        counts = {
            "distinct": self.distinct,
            "repeats left out": self.repeats_dropped,
            "left out, prompt too long": self.overlong_dropped,
            "prompts cut": self.overlong_cut,
            "beyond the limit": self.beyond_limit,
            "left out, ground truth refused": len(self.refused),
        }
        shown = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        names = ", ".join(file.path for file in self.files)
        selected = f" ({self.selected} selected)" if self.selected != self.rows else ""
        head = f"{names}: {self.rows} rows{selected}, {self.questions} questions: {shown}"
        refused = [
            f"{found.file}, row {found.row}: ground truth {found.truth!r} refused: {found.reason}"
            for found in self.refused[:SHOWN]
        ]
        rest = len(self.refused) - len(refused)
        return [head, *refused, *([f"and {rest} more rows with a refused ground truth"] if rest else [])]
