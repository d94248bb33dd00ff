"""Parquet files in the data contract (docs/data.md): questions with teacher answers, and conversations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ampo_registry.errors import DataError
from ampo_registry.tokens import TokenIds
from ampo_registry.types import Message, Question, TaskQuestion, TeacherAnswer

from ampo_core.data.questions import question_uid

if TYPE_CHECKING:
    import pyarrow as pa


def write_questions(
    path: Path,
    questions: Sequence[TaskQuestion],
    split: str,
    ability: str | Sequence[str],
    answers: Sequence[Sequence[TeacherAnswer]] | None = None,
) -> None:
    """Write a row for each question; `ability` is that of all, or one each.

    With `answers`, those of each question, rows get a `target_lst` and `extra_info.num_teacher_models`, the number of
    different teachers. A question's `extra` becomes `extra_info`, with `index` and `split`. Raises DataError if its
    values cannot stand in one column.
    """
    import pyarrow as pa

    abilities = [ability] * len(questions) if isinstance(ability, str) else list(ability)
    columns = {
        "data_source": pa.array([question.source for question in questions], pa.string()),
        "prompt": pa.array([_turns(question.messages) for question in questions], pa.list_(_message_type())),
        "ability": pa.array(abilities, pa.string()),
        "reward_model": pa.array([_reward_model(question) for question in questions]),
        "extra_info": _extra_info(questions, split, answers),
    }
    if answers is not None:
        columns["target_lst"] = _targets(answers)
    _write(path, pa.table(columns))


def questions_of(questions: Sequence[TaskQuestion], split: str, ability: str) -> list[Question]:
    """The questions as they are when they are read back, without tokens and teacher answers: a reward sees the row."""
    rows: list[dict[str, object]] = [
        {
            "data_source": question.source,
            "prompt": _turns(question.messages),
            "ability": ability,
            "reward_model": _reward_model(question),
            "extra_info": {**question.extra, "index": index, "split": split},
        }
        for index, question in enumerate(questions)
    ]
    return [
        Question(
            question_uid(question.messages, question.answer),
            question.messages,
            TokenIds(),
            question.answer,
            question.source,
            row,
            scored_answer=question.scored_answer,
        )
        for question, row in zip(questions, rows, strict=True)
    ]


def write_conversations(path: Path, conversations: Sequence[Sequence[Message]]) -> None:
    """Write a row with the column `messages` for each conversation."""
    import pyarrow as pa

    turns = pa.array([_turns(conversation) for conversation in conversations], pa.list_(_message_type()))
    _write(path, pa.table({"messages": turns}))


def conversations_of(
    questions: Sequence[TaskQuestion], answers: Sequence[Sequence[TeacherAnswer]]
) -> list[tuple[Message, ...]]:
    """Every (question, answer) pair as a conversation."""
    return [
        (*question.messages, Message("assistant", answer.text))
        for question, kept in zip(questions, answers, strict=True)
        for answer in kept
    ]


def _reward_model(question: TaskQuestion) -> dict[str, str]:
    scored = {} if question.scored_answer is None else {"scored_answer": question.scored_answer}
    return {"ground_truth": question.answer, **scored, "style": "rule"}


def _extra_info(
    questions: Sequence[TaskQuestion], split: str, answers: Sequence[Sequence[TeacherAnswer]] | None
) -> pa.Array:
    import pyarrow as pa

    rows: list[dict[str, object]] = [
        {**question.extra, "index": index, "split": split} for index, question in enumerate(questions)
    ]
    for row, kept in zip(rows, answers or (), strict=answers is not None):
        row["num_teacher_models"] = len({answer.teacher for answer in kept})
    try:
        return pa.array(rows)
    except pa.ArrowException as error:
        raise DataError(f"the questions' `extra` fields cannot be written to Parquet ({split}): {error}") from error


def _targets(answers: Sequence[Sequence[TeacherAnswer]]) -> pa.Array:
    import pyarrow as pa

    fields = [*_message_type(), pa.field("source", pa.string()), pa.field("quality_score", pa.float64())]
    recorded = any(answer.logprobs is not None for kept in answers for answer in kept)
    if recorded:
        fields.append(pa.field("logprobs", pa.list_(pa.float64())))
    rows = [[_target(answer, recorded) for answer in kept] for kept in answers]
    return pa.array(rows, pa.list_(pa.struct(fields)))


def _target(answer: TeacherAnswer, recorded: bool) -> dict[str, Any]:
    target: dict[str, Any] = {
        "role": "assistant",
        "content": answer.text,
        "source": answer.teacher,
        "quality_score": answer.quality_score,
    }
    logprobs = None if answer.logprobs is None else list(answer.logprobs)
    return {**target, "logprobs": logprobs} if recorded else target


def _message_type() -> pa.StructType:
    import pyarrow as pa

    return pa.struct([("role", pa.string()), ("content", pa.string())])


def _turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _write(path: Path, table: pa.Table) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, path)
