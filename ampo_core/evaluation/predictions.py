"""predictions.jsonl of an evaluate job: a line a sample, written model by model and set by set.

Its lines are what an interrupted job goes on from, and what can be graded anew without sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ampo_registry.errors import DataError, RunError
from ampo_registry.types import Grade, Question

from ampo_core.data.json_lines import json_lines, line_at
from ampo_core.evaluation.results import Answer, SetResult
from ampo_core.run.files import append_lines, flush, keep_lines

FILE = "predictions.jsonl"
Pair = tuple[str, str]
"""(model, set)."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """Where the samples of each pair stand in a file: the first byte and the length of each line, in order."""

    path: Path
    lines: Mapping[Pair, Sequence[tuple[int, int]]]

    @classmethod
    def scan(cls, path: Path) -> Predictions:
        """Read through the file; a last line that is not whole is left out, as a crash leaves one.

        Raises DataError, with the line, for any other that is no prediction.
        """
        lines: dict[Pair, list[tuple[int, int]]] = {}
        for line in json_lines(path, _pair, what="a prediction with a model and a set", leave_out="torn"):
            lines.setdefault(line.value, []).append((line.start, line.length))
        return cls(path, lines)

    def read(self, pair: Pair) -> Iterator[dict[str, Any]]:
        """The records of a pair, in the order of the file."""
        with self.path.open("rb") as file:
            for start, _ in self.lines[pair]:
                yield line_at(file, start)

    def grouped(self, pair: Pair) -> dict[str, list[dict[str, Any]]]:
        """uid -> its records by sample, questions in the order of the file.

        Raises DataError if one lacks a field, or if a question's samples are not 0, 1, 2, … .
        """
        groups: dict[str, list[dict[str, Any]]] = {}
        what = f"{self.path}: {pair[0]}, {pair[1]}"
        for record in self.read(pair):
            missing = [name for name in ("uid", "answer", "sample", "text", "tokens") if name not in record]
            if missing:
                raise DataError(f"{what}: a prediction without {', '.join(missing)}")
            groups.setdefault(str(record["uid"]), []).append(record)
        for uid, records in groups.items():
            records.sort(key=lambda record: int(record["sample"]))
            if [record["sample"] for record in records] != list(range(len(records))):
                found = ", ".join(str(record["sample"]) for record in records)
                raise DataError(f"{what}: the samples of question {uid[:12]}… are {found}, not 0 to {len(records) - 1}")
        return groups


def write(path: Path, model: str, result: SetResult, read: Callable[[Question], str | None]) -> None:
    """Append the samples of `model` on a set, with what it `read`, and have them on the disk. Raises RunError if it
    refuses."""
    append_lines(path, [{"model": model, **record} for record in result.predictions(read)])
    try:
        flush(path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error}") from error


def keep_only(predictions: Predictions, pairs: Collection[Pair]) -> None:
    """Take everything but `pairs` out of the file, which is replaced atomically; raises RunError if it cannot be."""
    try:
        keep_lines(predictions.path, sorted(place for pair in pairs for place in predictions.lines[pair]))
    except OSError as error:
        raise RunError(f"cannot write {predictions.path}: {error}") from error


def answer_of(record: Mapping[str, Any], grade: Grade | None = None) -> Answer:
    """The answer that a record holds, graded anew if `grade` is given; its text is left out.

    Raises KeyError if the record lacks a field.
    """
    own = grade or Grade(
        reward=float(record["reward"]),
        correct=bool(record["correct"]),
        formatted=bool(record["formatted"]),
        status=record["status"],
        detail=str(record["detail"]),
        numbers=record.get("numbers", {}),
    )
    logprob = record.get("logprob")
    return Answer(
        text="" if grade is None else str(record["text"]),
        tokens=int(record["tokens"]),
        finish_reason=record["finish_reason"],
        logprob=None if logprob is None else float(logprob),
        grade=own,
    )


def _pair(record: Mapping[str, Any]) -> Pair:
    return str(record["model"]), str(record["set"])
