"""The files of the `prepare` job, in the data contract (docs/data.md)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ampo_registry.types import TaskData, TeacherAnswer

from ampo_core.data.contract_files import conversations_of, write_conversations, write_questions

TRAIN = "train"
"""Split of the training questions."""


def write_data(out: Path, data: TaskData, answers: Sequence[Sequence[TeacherAnswer]], ability: str) -> None:
    """Write train.parquet, heldout/NAME.parquet and, where there is something to imitate, sft.parquet.

    `answers` are the kept ones of each training question.
    """
    write_questions(out / "train.parquet", data.train, TRAIN, ability, answers)
    (out / "heldout").mkdir()
    for name, questions in data.heldout.items():
        write_questions(out / "heldout" / f"{name}.parquet", questions, name, ability)
    conversations = data.sft or conversations_of(data.train, answers)
    if conversations:
        write_conversations(out / "sft.parquet", conversations)
