"""The summary of a pool build: what became of each teacher's answers, how teachers overlap, what unify removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from ampo_core.config.pool_job import PoolJob
from ampo_core.data.report import LoadReport
from ampo_core.jobs.pool.choose import FATES, Tally
from ampo_core.report.tables import Column, Table

NamedTally = tuple[str, Tally]
"""A teacher and what became of its answers."""


@dataclass(frozen=True, slots=True)
class CompositionCount:
    """A composition's file, as summary.json has it: `answered_before_unify` are questions with an answer of it; then
    what is written: `questions`, those of them with an answer, and `answers`, of each teacher too."""

    teachers: tuple[str, ...]
    answered_before_unify: int
    questions: int
    questions_answered: int
    answers: int
    answers_removed_by_unify: int
    answers_of: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PoolSummary:
    """All counts of a build. `answered` is teacher -> uids of the questions that it has a kept answer to."""

    job: PoolJob
    report: LoadReport
    tallies: Mapping[str, Tally]
    answered: Mapping[str, set[str]]
    compositions: Mapping[str, CompositionCount]

    @property
    def questions(self) -> int:
        """How many were asked."""
        return self.report.questions

    @property
    def left(self) -> int:
        """How many are written."""
        return next(count.questions for count in self.compositions.values())

    def solved_by(self) -> dict[int, int]:
        """Number of teachers -> number of questions that so many have a kept answer to, 0 teachers included."""
        teachers = Counter(uid for uids in self.answered.values() for uid in uids)
        counts = Counter(teachers.values())
        counts[0] = self.questions - len(teachers)
        return {number: counts[number] for number in range(len(self.answered) + 1)}

    def overlaps(self) -> dict[str, dict[str, int]]:
        """teacher -> teacher -> number of questions that both have a kept answer to; with itself, its own number."""
        return {a: {b: len(ours & theirs) for b, theirs in self.answered.items()} for a, ours in self.answered.items()}

    def as_json(self) -> dict[str, Any]:
        """What summary.json holds."""
        return {
            "questions": {
                "asked": self.questions,
                "rows": self.report.rows,
                "rows_selected": self.report.selected,
                "repeats_left_out": self.report.repeats_dropped,
                "prompt_too_long": self.report.overlong_dropped,
                "beyond_limit": self.report.beyond_limit,
                "ground_truth_refused": len(self.report.refused),
                "ground_truth_listed": len(self.report.listed),
                "removed_by_unify": self.questions - self.left,
                "written": self.left,
            },
            "keep": self.job.keep,
            "unify": self.job.unify,
            "teachers": {name: self._teacher(tally) for name, tally in self.tallies.items()},
            "answered_by": {str(number): count for number, count in self.solved_by().items()},
            "answered_by_both": self.overlaps(),
            "compositions": {name: asdict(count) for name, count in self.compositions.items()},
        }

    def _teacher(self, tally: Tally) -> dict[str, Any]:
        found: dict[str, Any] = {
            "questions": tally.questions,
            "questions_solved": tally.solved,
            "share_solved": round(tally.solved / tally.questions, 4) if tally.questions else None,
            "questions_answered": tally.answered,
            "answers": tally.answers,
            **{fate: tally.fates[fate] for fate in FATES},
            "kept_tokens_mean": tally.mean_kept,
            "tokens": tally.tokens,
            "prompt_tokens": tally.prompt_tokens,
            "requests_repeated": tally.tries - tally.answers,
        }
        if self.job.record_logprobs:
            found |= {"with_logprobs": tally.logprobs_kept, "logprobs_of_other_tokens": tally.logprobs_left_out}
        return found

    def lines(self) -> list[str]:
        """The counts over all teachers, for a person."""
        solved = ", ".join(f"{count} by {number}" for number, count in self.solved_by().items())
        lines = [f"{self.questions} questions; answered, by number of teachers: {solved}"]
        for name, count in self.compositions.items():
            text = f"composition {name}: {count.answered_before_unify} questions answered"
            if self.job.unify is not None:
                removed = f"{count.answers_removed_by_unify} answers less"
                text += f", {count.questions} left by unify: {self.job.unify}, {removed}"
            lines.append(f"{text}; {count.answers} answers written")
        if self.job.record_logprobs:
            lines += [
                f"teacher {name}: {tally.logprobs_left_out} of {tally.fates['kept']} kept answers are without "
                "log-probs, for the student cuts them into other tokens"
                for name, tally in self.tallies.items()
                if tally.logprobs_left_out
            ]
        return lines

    def show(self, console: Console) -> None:
        """Print the tables of teachers and overlaps."""
        met = [fate for fate in FATES if fate == "kept" or any(tally.fates[fate] for tally in self.tallies.values())]
        columns: list[Column[NamedTally]] = [
            Column("teacher", lambda item: item[0], text=True),
            Column("solved", lambda item: f"{item[1].solved} ({item[1].solved / max(item[1].questions, 1):.0%})"),
            Column("answers", lambda item: str(item[1].answers)),
            *map(_fate, met),
            Column("length of kept", lambda item: _length(item[1])),
        ]
        caption = "solved: questions with a correct answer; length in the student's tokens"
        Table(columns, list(self.tallies.items()), "Teachers", caption).show(console)
        if len(self.answered) > 1:
            overlaps: list[Column[str]] = [Column("teacher", str, text=True), *map(self._overlap, self.answered)]
            title = "Questions that both teachers have a kept answer to"
            Table(overlaps, list(self.answered), title).show(console)

    def _overlap(self, other: str) -> Column[str]:
        return Column(other, lambda name: str(len(self.answered[name] & self.answered[other])))


def _fate(fate: str) -> Column[NamedTally]:
    return Column(fate.replace("_", " "), lambda item: str(item[1].fates[fate]))


def _length(tally: Tally) -> str:
    kept = tally.fates["kept"]
    return f"{tally.kept_tokens / kept:.0f}" if kept else ""
