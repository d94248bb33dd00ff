"""The examples of an `sft` job: (prompt, answer) pairs, tokenised once, from a teacher pool or from conversations."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ampo_registry.errors import ConfigError, DataError
from ampo_registry.tokens import TokenIds

from ampo_core.config.sft_job import SftDataConfig
from ampo_core.data.conversations import conversation, with_system_prompt
from ampo_core.data.layouts import RowReader
from ampo_core.data.questions import Watch, load_questions
from ampo_core.data.rows import count_rows, read_rows, row_file
from ampo_core.data.tokens import PromptTokenizer
from ampo_core.data.turns import control_notes
from ampo_core.learner.packing import TokenPair

TOLD_EVERY = 256


@dataclass(frozen=True, slots=True)
class Conversation:
    """A tokenised prompt and an answer: the teacher that wrote it, if that is known, and file and row."""

    prompt: TokenIds
    answer: str
    teacher: str | None
    place: str


@dataclass(frozen=True, slots=True)
class Examples:
    """Tokenised (prompt, answer) pairs, and how many were left out because they exceed `max_tokens`.

    `teachers` says of how many pairs each teacher wrote the answer; conversations do not tell who wrote theirs.
    """

    pairs: tuple[TokenPair, ...]
    overlong: int
    notes: tuple[str, ...] = ()
    teachers: Mapping[str, int] = field(default_factory=dict)

    def uids(self) -> Iterator[str]:
        """What tells each pair from others: the SHA-256 (hex) of its token ids."""
        for pair in self.pairs:
            digest = hashlib.sha256(len(pair.prompt_token_ids).to_bytes(8, sys.byteorder))
            digest.update((pair.prompt_token_ids + pair.response_token_ids).buffer)
            yield digest.hexdigest()

    def lines(self) -> list[str]:
        """The counts for a person."""
        answers = sum(len(pair.response_token_ids) for pair in self.pairs) / len(self.pairs)
        left_out = f", {self.overlong} left out as longer than data.max_tokens" if self.overlong else ""
        return [*self.notes, f"{len(self.pairs)} examples, {answers:.0f} answer tokens each{left_out}"]


def load_examples(
    data: SftDataConfig, tokenizer: PromptTokenizer, positions: int | None = None, watch: Watch | None = None
) -> Examples:
    """All examples of `data.train`, tokenised once; those longer than `max_tokens` are left out and counted.

    Raises DataError for a missing, empty or malformed file, for an example that is longer than the model's
    `positions`, and if no example is left. `watch` is told what is read.
    """
    if data.format == "pool":
        notes, conversations = _pool_conversations(data, tokenizer, watch)
    else:
        notes, conversations = (), _message_conversations(data, tokenizer, watch)
    pairs: list[TokenPair] = []
    teachers: Counter[str] = Counter()
    controls: list[tuple[str, ...]] = []
    overlong = 0
    for found in conversations:
        answer = tokenizer.answer_ids(found.answer, found.prompt)
        pair = TokenPair(found.prompt, TokenIds(answer))
        if len(pair) > data.max_tokens:
            overlong += 1
            continue
        if positions is not None and len(pair) > positions:
            raise DataError(
                f"{found.place}: the example has {len(pair)} tokens and the model {positions} positions; "
                f"data.max_tokens: {positions} leaves out examples that are too long"
            )
        pairs.append(pair)
        if held := tokenizer.controls_in(found.answer):
            controls.append(held)
        teachers.update([found.teacher] if found.teacher is not None else [])
    if not pairs:
        left = f"all {overlong} examples exceed data.max_tokens = {data.max_tokens}" if overlong else "no example"
        raise DataError(f"{', '.join(map(str, data.train))}: nothing to train on: {left} (format: {data.format})")
    notes = (*notes, *control_notes(controls))
    return Examples(tuple(pairs), overlong, notes, dict(sorted(teachers.items())))


def _pool_conversations(
    data: SftDataConfig, tokenizer: PromptTokenizer, watch: Watch | None
) -> tuple[tuple[str, ...], Iterator[Conversation]]:
    loaded = load_questions(
        data.train,
        tokenizer,
        max_prompt_tokens=data.max_tokens,
        overlong_prompts="drop",
        system_prompt=data.system_prompt,
        check_truths=None,
        reader=RowReader.of(data, truths=False),
        distinct=True,  # a question that is repeated brings the answers of all of its rows
        watch=watch,
    )

    def pairs() -> Iterator[Conversation]:
        for i, question in enumerate(loaded.questions):
            for answer in question.answers:
                yield Conversation(question.prompt_token_ids, answer.text, answer.teacher, loaded.place(i))
            _tell(watch, "the answers", i + 1, len(loaded.questions))

    return tuple(loaded.report.lines()), pairs()


def _message_conversations(
    data: SftDataConfig, tokenizer: PromptTokenizer, watch: Watch | None
) -> Iterator[Conversation]:
    for path in map(row_file, data.train):
        number, total = 0, 0
        for number, row in read_rows(path):
            place, total = f"{path}, row {number}", total or count_rows(path)
            messages = with_system_prompt(conversation(row.get("messages"), place), data.system_prompt)
            if len(messages) < 2:
                raise DataError(f"{place}: with data.system_prompt: drop nothing is left before the answer")
            try:
                prompt = tokenizer.prompt_ids(messages[:-1])
            except ConfigError as error:
                raise DataError(f"{place}: {error}") from error
            yield Conversation(TokenIds(prompt), messages[-1].content, None, place)
            if number < total:
                _tell(watch, str(path), number, total)
        if not number:
            raise DataError(f"{path}: the file holds no row")
        _tell(watch, str(path), number, number)


def _tell(watch: Watch | None, what: str, done: int, total: int) -> None:
    if watch is not None and (done == total or done % TOLD_EVERY == 0):
        watch(what, done, total)
