"""The rows of questions whose samples are graded anew, where the file of their set is still there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from ampo_registry.errors import AmpoError
from ampo_registry.types import Question

from ampo_core.config.evaluate_job import EvaluateDataConfig
from ampo_core.config.held_out import EvaluationSet
from ampo_core.data.contract import selected
from ampo_core.data.conversations import with_system_prompt
from ampo_core.data.layouts import RowReader
from ampo_core.data.questions import question_uid
from ampo_core.data.rows import read_rows, row_file


def found_again(
    name: str, item: EvaluationSet, data: EvaluateDataConfig, asked: Collection[Question]
) -> tuple[dict[str, Question], str]:
    """uid -> the question of `asked` with its messages and its row, of those that the set's file holds; and what is to
    be said of the others, empty without any.

    A file that is gone, or cannot be read as the config says, is no error: the samples are there without it.
    """
    wanted = {question.uid: question for question in asked}
    found: dict[str, Question] = {}
    reason = "the set's file has no such row, read as data and the set say"
    path, reader = row_file(item.path), RowReader.of(item.read_as(data))
    try:
        if isinstance(path, Path) and not path.exists():
            reason = f"there is no {path}"
        else:
            for number, row in read_rows(path):
                if len(found) == len(wanted):
                    break
                if not selected(row, item.where, path, number):
                    continue
                checked = reader.read(row, path, number)
                messages = with_system_prompt(checked.messages, data.system_prompt)
                uid = question_uid(messages, checked.answer)
                if uid in wanted and uid not in found:
                    found[uid] = replace(wanted[uid], messages=messages, extra=checked.raw)
    except AmpoError as error:
        reason = str(error)
    lacking = len(wanted) - len(found)
    said = f"evaluation.sets.{name}: {lacking} of {len(wanted)} questions are graded without their row: {reason}"
    return found, said if lacking else ""
