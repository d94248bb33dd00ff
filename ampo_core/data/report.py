"""What loading did to the rows: nothing is dropped without being counted here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
class TruthCheck:
    """What a reward says of a ground truth: why no response could be verified against it (`refused`), or why a
    verdict against it may be unreliable (`listed`). Neither: it is fine."""

    refused: str | None = None
    listed: str | None = None


@dataclass(frozen=True, slots=True)
class RowTruth:
    """The ground truth of a row that was left out because of it, or was kept and listed, and the reason."""

    file: str
    row: int
    truth: str
    reason: str


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Counts of one load. `rows` is what the files hold, `selected` what `where` left of it;

    selected = questions + refused truths + repeats_dropped + overlong_dropped + beyond_limit. `distinct` counts
    the different questions among `questions`, and `duplicates` the others (0 where `distinct` was asked for);
    `repeats_differing` are rows that repeat a question with other teacher answers than its first row has,
    `scored_differing` rows with another scored answer than the first that the question's rows bring;
    `overlong_cut` are questions whose prompt lost its first tokens; `listed` are questions kept although verdicts
    against their ground truth may be unreliable.
    """

    files: tuple[FileReport, ...]
    rows: int
    selected: int
    questions: int
    distinct: int
    duplicates: int
    repeats_dropped: int
    repeats_differing: int
    scored_differing: int
    overlong_dropped: int
    overlong_cut: int
    beyond_limit: int
    refused: tuple[RowTruth, ...]
    listed: tuple[RowTruth, ...]

    def lines(self) -> list[str]:
        """The report for a person: a line of counts, then one for each refused ground truth and one for each
        listed one, at most SHOWN of either."""
        counts = {
            "distinct": self.distinct,
            "repeats left out": self.repeats_dropped,
            "repeats with other teacher answers": self.repeats_differing,
            "repeats whose other scored answer is not used": self.scored_differing,
            "left out, prompt too long": self.overlong_dropped,
            "prompts cut": self.overlong_cut,
            "beyond the limit": self.beyond_limit,
            "left out, ground truth refused": len(self.refused),
            "kept, ground truth listed": len(self.listed),
        }
        shown = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        names = ", ".join(file.path for file in self.files)
        selected = f" ({self.selected} selected)" if self.selected != self.rows else ""
        head = f"{names}: {self.rows} rows{selected}, {self.questions} questions: {shown}"
        return [head, *_truth_lines(self.refused, "refused"), *_truth_lines(self.listed, "listed")]


def _truth_lines(truths: Sequence[RowTruth], what: str) -> list[str]:
    shown = [f"{row.file}, row {row.row}: ground truth {row.truth!r} {what}: {row.reason}" for row in truths[:SHOWN]]
    rest = len(truths) - len(shown)
    return [*shown, *([f"and {rest} more rows with a {what} ground truth"] if rest else [])]


def listed_truths(checks: Mapping[str, TruthCheck]) -> list[str]:
    """A line for each ground truth of `checks` that is kept and listed, at most SHOWN."""
    listed = [(truth, check.listed) for truth, check in checks.items() if check.refused is None and check.listed]
    lines = [f"ground truth {truth!r} listed: {reason}" for truth, reason in listed[:SHOWN]]
    return [*lines, *([f"and {len(listed) - SHOWN} more listed ground truths"] if len(listed) > SHOWN else [])]
