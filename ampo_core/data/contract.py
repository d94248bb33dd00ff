"""The data contract: what a row must hold, checked field by field.

`data_source` str · `prompt` [{role, content}] ending with a user turn · `reward_model` {ground_truth, scored_answer?,
style: rule} · optional `ability` str, `extra_info` {…}, `target_lst` [{role, content, source, quality_score?,
logprobs?}] or null, `target` (the same, `source` optional) or null. Further columns are kept and not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from ampo_registry.errors import DataError
from ampo_registry.tokens import LogProbs
from ampo_registry.types import Message, TeacherAnswer

from ampo_core.config.data_files import Scalar
from ampo_core.data.rows import Row, RowFile

ROLES = ("system", "user", "assistant")
ROUNDED_UP = 1e-5
"""A log-prob so little above 0 is a rounding error of what computed it, and read as 0."""
SINGLE_TEACHER = "teacher"
"""The teacher's name where a row's `target` does not tell it."""


@dataclass(frozen=True, slots=True)
class CheckedRow:
    """The fields of a row that the core reads. `answer` is the ground truth, `raw` the row itself; `scored_answer` is
    None where it is left out or blank. `unusable` says why the row is no question, where that is so: it asks nothing,
    or is a mapped one and nothing can be verified against the answer that it has.

    `answers` are the teachers': they stand in `target_lst`, and where that is null or left out in `target`; an empty
    list is none.
    """

    source: str
    messages: tuple[Message, ...]
    answer: str
    answers: tuple[TeacherAnswer, ...]
    raw: Row
    scored_answer: str | None
    unusable: str | None = None


def check_row(row: Row, file: RowFile, number: int, columns: Mapping[str, str] | None = None) -> CheckedRow:
    """`row` as the contract reads it. A mapped one is a person's own with the contract's fields written into it, and
    its further columns may have names of the contract's and mean something else; `columns` says of fields which column
    of theirs they are read from.

    Raises DataError that names file, row, field and what was found.
    """
    check, mapped = _Checker(file, number, columns or {}), columns is not None
    reward_model = check.mapping(row, "reward_model")
    answer = check.text(reward_model, "ground_truth", "reward_model.")
    style = check.text(reward_model, "style", "reward_model.", default="rule")
    if style != "rule":
        check.fail("reward_model.style", '"rule" (a rule verifies the answer)', style)
    if not mapped:
        check.text(row, "ability", default="")
        if row.get("extra_info") is not None:
            check.mapping(row, "extra_info")
    several = check.targets(row, "target_lst")
    theirs = mapped and not isinstance(row.get("target"), list)
    single = () if theirs else check.targets(row, "target", SINGLE_TEACHER)
    answers = single if row.get("target_lst") is None else several
    scored = check.text(reward_model, "scored_answer", "reward_model.", default="")
    source, messages = check.text(row, "data_source"), check.prompt(row)
    blank = None if messages[-1].content.strip() else f"{check.called('prompt')}: it is empty"
    return CheckedRow(source, messages, answer, answers, row, scored if scored.strip() else None, blank)


def column(row: Row, name: str) -> Any:
    """The value of a column; dots reach inside. Raises KeyError if there is none."""
    value: Any = row
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise KeyError(name)
        value = value[part]
    return value


def selected(row: Row, where: Mapping[str, Scalar], file: RowFile, number: int) -> bool:
    """Whether the columns of `row` have the values of `where`. Raises DataError for a column that is not there."""
    try:
        found = [column(row, name) for name in where]
    except KeyError as error:
        columns = ", ".join(row).encode(errors="backslashreplace").decode()
        raise DataError(f"{file}, row {number}: where: no column {error.args[0]}; found {columns}") from error
    # True == 1 in Python, but not for the person who wrote the condition.
    return all(
        value == wanted and isinstance(value, bool) == isinstance(wanted, bool)
        for value, wanted in zip(found, where.values(), strict=True)
    )


def is_unicode(text: str) -> bool:
    """False for what only looks like text: JSON can write half of a surrogate pair, which no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Checker:
    file: RowFile
    number: int
    columns: Mapping[str, str]

    def called(self, name: str) -> str:
        """What a person calls a field: the column that it, or what it is in, was read from."""
        for ours, theirs in self.columns.items():
            if name == ours or name.startswith((f"{ours}.", f"{ours}[")):
                return theirs + name[len(ours) :]
        return name

    def fail(self, field: str, wanted: str, found: object) -> NoReturn:
        shown = "nothing (missing or null)" if found is None else repr(found)
        shown = shown if len(shown) <= 120 else shown[:117] + "..."
        raise DataError(f"{self.file}, row {self.number}: {self.called(field)} must be {wanted}; found {shown}")

    def text(self, mapping: Row, key: str, prefix: str = "", default: str | None = None) -> str:
        value = mapping.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            self.fail(prefix + key, "text", value)
        if not is_unicode(value):
            self.fail(prefix + key, "text in Unicode, without halves of surrogate pairs", value)
        return value

    def mapping(self, row: Row, key: str) -> Row:
        value = row.get(key)
        if not isinstance(value, Mapping):
            self.fail(key, "a mapping", value)
        return value

    def prompt(self, row: Row) -> tuple[Message, ...]:
        messages = self._messages(row.get("prompt"), "prompt")
        if not messages or messages[-1].role != "user":
            self.fail("prompt", "a list of {role, content} whose last turn is the user's", row.get("prompt"))
        if any(message.role == "system" for message in messages[1:]):
            self.fail("prompt", "a list with at most one system turn, the first", row.get("prompt"))
        return messages

    def targets(self, row: Row, field: str, unnamed: str | None = None) -> tuple[TeacherAnswer, ...]:
        """The teacher answers of a column; `unnamed` is the teacher of those that do not name theirs."""
        entries = enumerate(self._list(row.get(field), field))
        return tuple(self._target(target, f"{field}[{index}]", unnamed) for index, target in entries)

    def _target(self, target: Row, field: str, unnamed: str | None) -> TeacherAnswer:
        message, prefix = self._message(target, field), field + "."
        if message.role != "assistant":
            self.fail(prefix + "role", "assistant", message.role)
        teacher = self.text(target, "source", prefix, default=unnamed) or unnamed
        if not teacher:
            self.fail(prefix + "source", "the name of a teacher", target["source"])
        score, logprobs = target.get("quality_score"), target.get("logprobs")
        if score is not None and not _is_number(score):
            self.fail(prefix + "quality_score", "a number or null", score)
        if logprobs is not None and not (isinstance(logprobs, list) and all(map(_is_finite, logprobs))):
            self.fail(prefix + "logprobs", "a list of finite numbers or null", logprobs)
        if logprobs and max(logprobs) > ROUNDED_UP:
            self.fail(
                prefix + "logprobs", "numbers of at most 0, for they are logarithms of probabilities", max(logprobs)
            )
        return TeacherAnswer(
            teacher=teacher,
            text=message.content,
            logprobs=None if logprobs is None else LogProbs([min(float(value), 0.0) for value in logprobs]),
            # A number column writes a missing value as NaN, which has no place in an order.
            quality_score=None if score is None or math.isnan(score) else float(score),
        )

    def _messages(self, value: object, field: str) -> tuple[Message, ...]:
        return tuple(self._message(turn, f"{field}[{index}]") for index, turn in enumerate(self._list(value, field)))

    def _message(self, turn: object, field: str) -> Message:
        if not isinstance(turn, Mapping):
            self.fail(field, "{role, content}", turn)
        role = self.text(turn, "role", field + ".")
        if role not in ROLES:
            self.fail(field + ".role", "one of " + ", ".join(ROLES), role)
        return Message(role, self.text(turn, "content", field + "."))

    def _list(self, value: object, field: str) -> list[Any]:
        if value is None:
            return []
        if not isinstance(value, list):
            self.fail(field, "a list", value)
        return value


def _is_number(value: object) -> bool:
    """True iff `value` is one that a float can hold."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        float(value)
    except OverflowError:  # JSON knows whole numbers of any length
        return False
    return True


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)
