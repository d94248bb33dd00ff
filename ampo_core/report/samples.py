"""What samples.jsonl and predictions.jsonl show: a few rows of texts, and every score.

Files grow to gigabytes: samples.jsonl is read a line at a time, of predictions.jsonl only the rows that are shown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError

from ampo_core.data.json_lines import json_lines, line_at

MOST_ROWS = 240
LONGEST_TEXT = 6_000
"""Characters of a text that a page holds; how many were cut is said beside it."""

Row = dict[str, Any]
"""place (step or set), step, who, teacher (bool), reward, correct (None where only the reward tells), score, question,
read (the whole prompt as the model reads it; None in files of older releases), truth, text, cut (characters left out),
given (characters of the text that a teacher wrote and the student went on from), trained (which terms train how many
tokens; empty where its source says it)."""


@dataclass(frozen=True, slots=True)
class Samples:
    """`rows` of the `total` that were written; `scores` are (step, score) of every teacher answer, by teacher."""

    total: int
    rows: tuple[Row, ...]
    scores: Mapping[str, Sequence[tuple[int, float]]]


def read_samples(path: Path, most: int = MOST_ROWS) -> Samples:
    """The rows of whole steps, evenly spread from the first to the last, at most `most` of them.

    Raises ConfigError for a line that is not one of samples.jsonl; a last one without its newline is left out.
    """
    starts: dict[int, list[int]] = {}
    scores: dict[str, list[tuple[int, float]]] = {}
    try:
        for line in json_lines(path, dict, what="a sample", error=ConfigError, leave_out="torn"):
            record = line.value
            starts.setdefault(int(record["step"]), []).append(line.start)
            score = record.get("score")
            if record.get("teacher") and isinstance(score, int | float) and math.isfinite(score):
                scores.setdefault(str(record["teacher"]), []).append((int(record["step"]), float(score)))
        chosen = [start for step in _spread(starts, most) for start in starts[step]][:most]
        with path.open("rb") as file:
            rows = tuple(training_row(line_at(file, start)) for start in chosen)
    except (OSError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read: {error!r}") from error
    return Samples(sum(map(len, starts.values())), rows, scores)


def read_predictions(path: Path, most: int = MOST_ROWS) -> tuple[Row, ...]:
    """At most `most` lines of predictions.jsonl, evenly spread over the file. Raises ConfigError for a bad one."""
    rows: dict[int, Row] = {}
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            for place in range(most):
                file.seek(size * place // most)
                if file.tell():
                    file.readline()
                offset, line = file.tell(), file.readline()
                if line.endswith(b"\n"):
                    rows[offset] = prediction_row(json.loads(line))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read: {error!r}") from error
    return tuple(rows.values())


def _spread(starts: Mapping[int, Sequence[int]], most: int) -> list[int]:
    """Steps, the last first, whose rows together are at most `most`; at least one."""
    steps = sorted(starts)
    if not steps:
        return []
    widest = max(len(rows) for rows in starts.values())
    count = min(len(steps), max(1, most // widest))
    if count == 1:
        return steps[-1:]
    return list(dict.fromkeys(steps[round(i * (len(steps) - 1) / (count - 1))] for i in reversed(range(count))))


def training_row(record: Mapping[str, Any]) -> Row:
    """A line of samples.jsonl as a row."""
    teacher = record.get("teacher")
    return {
        "place": f"step {record['step']}",
        "step": record["step"],
        "who": str(teacher or "student"),
        "teacher": bool(teacher),
        "reward": record["reward"],
        "correct": None,
        "score": record.get("score"),
        "read": _short(record.get("read")),
        **_texts(record.get("prompt"), record.get("answer"), record["text"]),
        "given": min(int(record.get("given") or 0), LONGEST_TEXT),
        "trained": " · ".join(f"{term or 'context'} {tokens}" for term, tokens in record.get("segments") or ()),
    }


def prediction_row(record: Mapping[str, Any]) -> Row:
    """A line of predictions.jsonl as a row."""
    reward = record.get("reward")
    return {
        "place": str(record["set"]),
        "step": None,
        "who": str(record["model"]),
        "teacher": False,
        "reward": float(record["correct"]) if reward is None else reward,
        "correct": bool(record["correct"]),
        "score": None,
        "read": _short(record.get("read")),
        **_texts(record.get("prompt"), record.get("answer"), record["text"]),
    }


def _texts(question: object, truth: object, text: object) -> Row:
    whole = str(text)
    return {
        "question": _short(question),
        "truth": _short(truth),
        "given": 0,
        "trained": "",
        "text": whole[:LONGEST_TEXT],
        "cut": max(0, len(whole) - LONGEST_TEXT),
    }


def _short(text: object) -> str | None:
    return None if text is None else str(text)[:LONGEST_TEXT]
