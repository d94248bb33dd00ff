"""From data files to questions: read, select, check, tokenise, and count all that is left out."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, islice
from pathlib import Path
from typing import Literal

from ampo_registry.errors import ConfigError, DataError
from ampo_registry.tokens import TokenIds
from ampo_registry.types import Message, Question

from ampo_core.config.data_files import HubData, Scalar
from ampo_core.data.contract import CheckedRow, selected
from ampo_core.data.conversations import with_system_prompt
from ampo_core.data.layouts import RowReader, hint
from ampo_core.data.repeats import SharedAnswers
from ampo_core.data.report import FileReport, LoadReport, RowTruth, TruthCheck
from ampo_core.data.rows import Row, RowFile, count_rows, file_hash, read_rows, row_file
from ampo_core.data.tokens import PromptTokenizer

CheckTruths = Callable[[Sequence[str]], Sequence[TruthCheck]]
Watch = Callable[[str, int, int], None]
"""Told what is read, and how much of how much is done."""
PART = 4096
"""Rows that are checked, verified and tokenised together: of no more of them is kept what is left out."""


@dataclass(frozen=True, slots=True)
class LoadedQuestions:
    """The questions, file by file in the files' order, the row of each, and what was counted on the way."""

    questions: tuple[Question, ...]
    rows: tuple[int, ...]
    report: LoadReport

    def place(self, index: int) -> str:
        """File and row of a question, for a person."""
        ends = accumulate(file.questions for file in self.report.files)
        file = next(file for file, end in zip(self.report.files, ends, strict=True) if index < end)
        return f"{file.path}, row {self.rows[index]}"


def load_questions(
    paths: Sequence[str | Path | HubData],
    tokenizer: PromptTokenizer,
    *,
    max_prompt_tokens: int,
    overlong_prompts: Literal["drop", "cut"],
    system_prompt: str,
    check_truths: CheckTruths | None,
    reader: RowReader | None = None,
    where: Mapping[str, Scalar] | None = None,
    distinct: bool = False,
    limit: int | None = None,
    watch: Watch | None = None,
) -> LoadedQuestions:
    """The questions of `paths` (Parquet, JSONL, JSON, CSV) and data sets, in the data contract or as `reader` maps it.

    `where` keeps rows whose columns (dots reach inside) have these values; `system_prompt` is "keep", "drop" or a
    text that takes the place of every row's own; `check_truths` says of each of many ground truths whether its rows are
    left out or listed, and None accepts all; a prompt longer than `max_prompt_tokens` is dropped, or cut to its
    last tokens; `distinct` keeps the first of each uid; `limit` the first so many questions. Rows of one uid share
    their teacher answers and the first scored answer (`SharedAnswers`). Everything left out is counted in the report.
    `watch` is told the rows that are read.
    Raises DataError for a missing, empty or malformed file and if no question is left.
    """
    cut = overlong_prompts == "cut"
    reader = reader or RowReader()
    loader = _Loader(
        tokenizer, max_prompt_tokens, cut, system_prompt, check_truths, reader, where or {}, distinct, limit
    )
    with _without_collections():
        for path in map(row_file, paths):
            loader.load(path, watch)
    return loader.finish()


@contextmanager
def _without_collections() -> Iterator[None]:
    """A block without garbage collections: what is read stays, and to look through it again and again for cycles takes
    a fifth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def question_uid(messages: Sequence[Message], answer: str) -> str:
    """SHA-256 (hex) of (messages, answer): what makes two rows the same question."""
    content = [[[message.role, message.content] for message in messages], answer]
    return hashlib.sha256(json.dumps(content).encode("ascii")).hexdigest()


@dataclass(frozen=True, slots=True)
class _Placed:
    """A checked row, where it stands, and the question that it asks."""

    row: CheckedRow
    path: RowFile
    number: int
    messages: tuple[Message, ...]
    uid: str


@dataclass(slots=True)
class _Loader:
    """One load in progress: the options, the questions so far, the counts."""

    tokenizer: PromptTokenizer
    max_prompt_tokens: int
    cut: bool
    system_prompt: str
    check_truths: CheckTruths | None
    reader: RowReader
    where: Mapping[str, Scalar]
    distinct: bool
    limit: int | None
    questions: list[Question] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    files: list[FileReport] = field(default_factory=list)
    refused: list[RowTruth] = field(default_factory=list)
    listed: list[RowTruth] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    truths: dict[str, TruthCheck] = field(default_factory=dict)
    answers: SharedAnswers = field(default_factory=SharedAnswers)
    first_unusable: tuple[Row, RowFile, int] | None = None
    selected: int = 0
    repeats_dropped: int = 0
    overlong_dropped: int = 0
    overlong_cut: int = 0
    beyond_limit: int = 0
    longest: int = 0

    def load(self, path: RowFile, watch: Watch | None) -> None:
        rows, total, before = 0, 0, len(self.questions)
        every = enumerate(read_rows(path), start=1)
        while part := list(islice(every, PART)):
            total = total or count_rows(path)
            rows = part[-1][0]
            self._add_all(
                [
                    self._placed(row, path, number)
                    for _, (number, row) in part
                    if selected(row, self.where, path, number)
                ]
            )
            if watch is not None and rows < total:
                watch(str(path), rows, total)
        if rows == 0:
            raise DataError(f"{path}: the file holds no row")
        if watch is not None:
            watch(str(path), rows, rows)
        self.files.append(FileReport(str(path), file_hash(path), rows, len(self.questions) - before))

    def finish(self) -> LoadedQuestions:
        report = LoadReport(
            files=tuple(self.files),
            rows=sum(file.rows for file in self.files),
            selected=self.selected,
            questions=len(self.questions),
            distinct=len(self.seen),
            duplicates=len(self.questions) - len(self.seen),
            repeats_dropped=self.repeats_dropped,
            repeats_differing=self.answers.differing,
            scored_differing=self.answers.scored_differing,
            overlong_dropped=self.overlong_dropped,
            overlong_cut=self.overlong_cut,
            beyond_limit=self.beyond_limit,
            refused=tuple(self.refused),
            listed=tuple(self.listed),
        )
        if not self.questions:
            condition = f"; where: {self.where}" if self.where else ""
            unread = hint(self.reader, *self.first_unusable) if self.first_unusable is not None else ""
            if self.overlong_dropped:
                condition += (
                    f"; a prompt may have {self.max_prompt_tokens} tokens (data.max_prompt_tokens, in an sft job "
                    f"data.max_tokens), and the longest has {self.longest}"
                )
            raise DataError("no question is left" + condition + unread + "\n" + "\n".join(report.lines()[:6]))
        return LoadedQuestions(tuple(map(self.answers.share, self.questions)), tuple(self.rows), report)

    def _placed(self, row: Row, path: RowFile, number: int) -> _Placed:
        checked = self.reader.read(row, path, number)
        if checked.unusable is not None and self.first_unusable is None:
            self.first_unusable = (row, path, number)
        messages = with_system_prompt(checked.messages, self.system_prompt)
        return _Placed(checked, path, number, messages, question_uid(messages, checked.answer))

    def _add_all(self, rows: Sequence[_Placed]) -> None:
        # Ground truths go to the verifier together; with a limit no more of them than there is room for.
        self.selected += len(rows)
        done = 0
        while done < len(rows):
            room = len(rows) if self.limit is None else self.limit - len(self.questions)
            part = rows[done : done + room] if room > 0 else rows[done:]
            prompts = self._prompts(part) if room > 0 else {}
            for row in part:
                self._add(row, prompts, full=room <= 0)
            done += len(part)

    def _prompts(self, rows: Sequence[_Placed]) -> dict[str, TokenIds]:
        """uid -> prompt of the questions among `rows` that may be taken; checks their ground truths first."""
        rows = [placed for placed in rows if placed.row.unusable is None]
        new = list(dict.fromkeys(placed.row.answer for placed in rows if placed.row.answer not in self.truths))
        if new:
            checks = [TruthCheck()] * len(new) if self.check_truths is None else self.check_truths(new)
            self.truths.update(zip(new, checks, strict=True))
        texts: dict[str, str] = {}
        for placed in rows:
            known = placed.uid in texts or (self.distinct and placed.uid in self.seen)
            if not known and self.truths[placed.row.answer].refused is None:
                texts[placed.uid] = self._text(placed)
        return dict(zip(texts, self.tokenizer.prompts_ids(list(texts.values())), strict=True))

    def _text(self, placed: _Placed) -> str:
        try:
            return self.tokenizer.prompt_text(placed.messages)
        except ConfigError as error:
            raise DataError(f"{placed.path}, row {placed.number}: {error}") from error

    def _add(self, placed: _Placed, prompts: Mapping[str, TokenIds], *, full: bool) -> None:
        if self.distinct and placed.uid in self.seen:
            self.repeats_dropped += 1
            self.answers.add(placed.uid, placed.row.answers, placed.row.scored_answer)
        elif full:
            self.beyond_limit += 1
        elif (reason := placed.row.unusable or self.truths[placed.row.answer].refused) is not None:
            self.refused.append(_row_truth(placed, reason))
        else:
            self._take(placed, prompts[placed.uid])

    def _take(self, placed: _Placed, ids: TokenIds) -> None:
        row, self.longest = placed.row, max(self.longest, len(ids))
        if len(ids) > self.max_prompt_tokens:
            if not self.cut:
                self.overlong_dropped += 1
                return
            self.overlong_cut += 1
            ids = self.tokenizer.cut_prompt(ids, self.max_prompt_tokens)
        self.seen.add(placed.uid)
        self.answers.add(placed.uid, row.answers, row.scored_answer)
        question = Question(
            placed.uid, placed.messages, ids, row.answer, row.source, row.raw, row.answers, row.scored_answer
        )
        self.questions.append(question)
        self.rows.append(placed.number)
        if (reason := self.truths[row.answer].listed) is not None:
            self.listed.append(_row_truth(placed, reason))


def _row_truth(placed: _Placed, reason: str) -> RowTruth:
    return RowTruth(str(placed.path), placed.number, placed.row.answer, reason)
