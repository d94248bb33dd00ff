"""Shards of a pool build: files that are written once, whole, and never changed; a build goes on from them.

    shards/TEACHER-1a2b3c4d/recipe.json   what decides this teacher's answers; the digits are its digest
                            00000-5e6f7a8b.answers.parquet             all its answers to the questions of a shard
                            00000-5e6f7a8b.verdicts-9c0d1e2f.parquet   what the reward says of them

A shard's name holds the digest of its questions, that of the verdicts the digest of the reward and of the rows that it
reads. So what was sampled serves again wherever it would be sampled alike, and nothing is taken for what it is not.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ampo_registry.errors import RunError
from ampo_registry.tokens import LogProbs, TokenIds
from ampo_registry.types import GradeRequest, Question

from ampo_core.data.json_lines import json_lines
from ampo_core.run.disk import writing
from ampo_core.run.files import flush, write_json

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
ENDED = "stop"
"""The finish reason of an answer that its teacher has ended."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as its teacher wrote it.

    `finish_reason` is stop, length (cut off at the limit) or what an endpoint says; `tokens` are the teacher's own,
    stop token included, and `prompt_tokens` those it was asked with, where they are known; `tries` counts requests.
    `token_ids` and `logprobs` (nats) are there only where log-probs are recorded.
    """

    uid: str
    sample: int
    text: str
    finish_reason: str
    tokens: int | None = None
    prompt_tokens: int | None = None
    tries: int = 1
    token_ids: TokenIds | None = None
    logprobs: LogProbs | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the reward says of an answer; `status` is ok, timeout or error, and `detail` says what went wrong."""

    uid: str
    sample: int
    correct: bool
    status: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Shard:
    """A run of questions that are answered, verified and written together; `rows` is the digest of what a reward may
    read of them beside their text and truth."""

    number: int
    questions: tuple[Question, ...] = field(repr=False)
    rows: str

    @property
    def name(self) -> str:
        """Number and digest of the questions."""
        return f"{self.number:05d}-{digest([question.uid for question in self.questions])}"


def cut(questions: Sequence[Question], size: int) -> list[Shard]:
    """`questions` in shards of `size`, the last one smaller."""
    parts = [tuple(questions[start : start + size]) for start in range(0, len(questions), size)]
    return [Shard(number, part, _rows_digest(part)) for number, part in enumerate(parts)]


def _rows_digest(questions: Sequence[Question]) -> str:
    asked = (GradeRequest.of(question, "") for question in questions)
    # What JSON has no form for (dates, bytes, decimals) is told apart by how Python writes it.
    return digest(json.dumps([[row.source, row.extra] for row in asked], sort_keys=True, default=repr))


def digest(value: object) -> str:
    """Eight hex digits that tell JSON values apart."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class TeacherShards:
    """The files of one teacher. `reward` is the digest of the reward that verifies."""

    folder: Path
    reward: str

    @classmethod
    def of(cls, shards: Path, teacher: str, recipe: Mapping[str, Any], reward: Mapping[str, Any]) -> TeacherShards:
        """Those of `teacher` under `recipe` (JSON types): everything that decides its answers but the questions."""
        return cls(shards / f"{teacher}-{digest(recipe)}", digest(reward))

    def open(self, recipe: Mapping[str, Any]) -> None:
        """Make the folder. Raises RunError where the disk refuses."""
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / "recipe.json").exists():
                write_json(self.folder / "recipe.json", recipe)

    def answers_file(self, shard: Shard) -> Path:
        """Where the answers of `shard` are; the file is there iff they are complete."""
        return self.folder / f"{shard.name}.answers.parquet"

    def verdicts_file(self, shard: Shard) -> Path:
        """Where the verdicts on them are; the file is there iff they are complete."""
        return self.folder / f"{shard.name}.verdicts-{digest([self.reward, shard.rows])}.parquet"

    def write_answers(self, shard: Shard, answers: Sequence[Answer]) -> None:
        """Write all answers of `shard`. Raises RunError where the disk refuses."""
        _write(self.answers_file(shard), answers, _answer_type())
        for journal in self.journals(shard):
            journal.unlink()

    def write_verdicts(self, shard: Shard, verdicts: Sequence[Verdict]) -> None:
        """Write the verdicts on all answers of `shard` that ended. Raises RunError where the disk refuses."""
        _write(self.verdicts_file(shard), verdicts, _verdict_type())

    def read_answers(self, shard: Shard) -> list[Answer]:
        """All answers of `shard`, question by question. Raises RunError for a file that is damaged."""
        return [_answer(row) for row in _read(self.answers_file(shard))]

    def read_verdicts(self, shard: Shard) -> list[Verdict]:
        """The verdicts on those that ended, in the same order. Raises RunError for a file that is damaged."""
        return [Verdict(**row) for row in _read(self.verdicts_file(shard))]

    def journals(self, shard: Shard) -> list[Path]:
        """Files of single answers of a shard that is not complete: what an endpoint has answered so far."""
        return sorted(self.folder.glob(f"{shard.name}.requests-*.jsonl"))

    def journal(self, shard: Shard, session: int, rank: int) -> Path:
        """The journal that `rank` appends to in the `session`-th attempt at `shard`."""
        return self.folder / f"{shard.name}.requests-{session:03d}-{rank:03d}.jsonl"

    def journaled(self, shard: Shard) -> dict[tuple[str, int], Answer]:
        """(uid, sample) -> answer of what journals hold; a last line that a crash has cut short is left out.

        Raises RunError for any other line that cannot be read.
        """
        found: dict[tuple[str, int], Answer] = {}
        hint = "; remove that line, and its answer is asked for again"
        for path in self.journals(shard):
            for line in json_lines(path, _answer, what="an answer", error=RunError, leave_out="torn", hint=hint):
                found[line.value.uid, line.value.sample] = line.value
        return found


def _answer(row: Mapping[str, Any]) -> Answer:
    kinds = {"token_ids": TokenIds, "logprobs": LogProbs}
    return Answer(**{**row, **{name: kind(row[name]) for name, kind in kinds.items() if row.get(name) is not None}})


def _answer_type() -> pa.Schema:
    import pyarrow as pa

    whole = {name: pa.int32() for name in ("sample", "tokens", "prompt_tokens", "tries")}
    types = {"uid": pa.string(), "text": pa.string(), "finish_reason": pa.string(), **whole}
    lists = {"token_ids": pa.list_(pa.int32()), "logprobs": pa.list_(pa.float32())}
    return pa.schema({**types, **lists})


def _verdict_type() -> pa.Schema:
    import pyarrow as pa

    texts = {name: pa.string() for name in ("uid", "status", "detail")}
    return pa.schema({**texts, "sample": pa.int32(), "correct": pa.bool_()})


def _write(path: Path, items: Sequence[Answer] | Sequence[Verdict], schema: pa.Schema) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # not asdict, which would copy every token of every answer
    table = pa.Table.from_pylist([{name: getattr(item, name) for name in schema.names} for item in items], schema)
    partial = path.with_name(f".{path.name}.partial")
    with writing(path, partial):
        pq.write_table(table, partial, compression="zstd")
        flush(partial)
        os.replace(partial, path)
        flush(path.parent)


def _read(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise RunError(f"{path} is damaged: {error}; remove it, and the same command makes it anew") from error
    return rows
