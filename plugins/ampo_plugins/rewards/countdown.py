"""Countdown: reach a target by arithmetic over given numbers. The ground truth is a constraint, no answer."""

from __future__ import annotations

import ast
import json
import operator
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Literal

from ampo_registry import Grade, GradeRequest, RewardSpec
from pydantic import Field

from ampo_plugins.rewards.answer_tags import tagged_answer, without_thoughts

LARGEST = 10**12
"""No number of a task is larger; at most `MOST` of them are given."""
MOST = 32
LONGEST = 1000
"""Characters of an answer; what is longer is none."""
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "[": "(", "]": ")"})


@dataclass(frozen=True, slots=True)
class Task:
    """A target and the numbers to reach it with."""

    target: int
    numbers: tuple[int, ...]


class Countdown(RewardSpec):
    """Correct iff the answer is arithmetic over the given numbers that comes to the target.

    The answer in the tags consists of `+ - * /`, parentheses and the given numbers, each used once: all of them
    (TinyZero), or with `use: some` not all (Reasoning Gym). Values are exact fractions. The ground truth is
    `{"target": 24, "numbers": [3, 5, 7, 4]}`, or with `numbers_column` the target alone.
    """

    type: Literal["countdown"] = "countdown"
    truth_is_answer: ClassVar[bool] = False

    use: Literal["all", "some"] = Field(default="all", description="how many of the numbers an answer must use")
    numbers_column: str | None = Field(
        default=None,
        min_length=1,
        description="the row's column with the numbers (dots reach inside) where the ground truth is the target alone",
    )
    skip_thoughts: bool = Field(default=True, description="tags inside `<think>…</think>` do not count")

    def grade(self, requests: Sequence[GradeRequest]) -> list[Grade]:
        return [self.combine(self._correct(request), self.formatted(request.text)) for request in requests]

    def check_truth(self, answer: str) -> str | None:
        try:
            self._task(_read(answer), [0] if self.numbers_column else None)
        except ValueError as error:
            return str(error)
        return None

    def canaries(self) -> Sequence[tuple[GradeRequest, bool]]:
        said = {
            "(3 + 5) * (7 - 4)": True,
            "3 + 5 * 7 - 4": False,
            "(3 + 5) * 3": False,
            "24": False,
        }
        truth, spare = '{"target": 24, "numbers": [3, 5, 7, 4]}', '{"target": 24, "numbers": [3, 8, 5]}'
        all_used = [(GradeRequest(f"so <answer> {text} </answer>", truth), right) for text, right in said.items()]
        return [*all_used, (GradeRequest("so <answer> 3 * 8 </answer>", spare), self.use == "some")]

    def _correct(self, request: GradeRequest) -> bool:
        text = without_thoughts(request.text) if self.skip_thoughts else request.text
        answer = tagged_answer(text)
        truth = _read(request.answer)
        task = self._task(truth, None if isinstance(truth, Mapping) else self._column(request))
        return answer is not None and reaches(answer, task, everything=self.use == "all")

    def _column(self, request: GradeRequest) -> object:
        value: Any = request.extra
        for part in (self.numbers_column or "").split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise ValueError(f"question {request.uid[:12]}: its row has no column {self.numbers_column}")
            value = value[part]
        return value

    def _task(self, truth: object, column: object) -> Task:
        """The task that a ground truth and, where that is the target alone, a column set. Raises ValueError."""
        if isinstance(truth, Mapping):
            return _task(truth.get("target"), truth.get("numbers"))
        if column is None:
            wanted = '{"target": 24, "numbers": [3, 5, 7, 4]}'
            raise ValueError(f"it must be a JSON object like {wanted}; a target alone needs reward.numbers_column")
        return _task(truth, column)


def reaches(answer: str, task: Task, *, everything: bool) -> bool:
    """Whether `answer` is arithmetic over the numbers of `task` that comes to its target."""
    if len(answer) > LONGEST:
        return False
    used: list[int] = []
    try:
        with warnings.catch_warnings(action="ignore"):  # Python's parser warns of what looks like a slip in a program
            tree = ast.parse(" ".join(answer.translate(_SIGNS).split()), mode="eval")
        value = _value(tree.body, used)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return False
    given, spent = Counter(task.numbers), Counter(used)
    return value == task.target and (spent == given if everything else spent <= given)


def _value(node: ast.expr, used: list[int]) -> Fraction:
    """What an expression comes to; its numbers are added to `used`. Raises ValueError for what is no arithmetic."""
    match node:
        case ast.Constant(value=int() as number) if not isinstance(number, bool):
            used.append(number)
            return Fraction(number)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            return _value(operand, used) * (-1 if isinstance(sign, ast.USub) else 1)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            found: Fraction = _OPERATORS[type(op)](_value(left, used), _value(right, used))
            return found
    raise ValueError(f"{type(node).__name__} is no arithmetic")


def _read(truth: str) -> object:
    """The JSON of a ground truth. Raises ValueError if it is none."""
    try:
        found: object = json.loads(truth)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON: {error}") from error
    return found


def _task(target: object, numbers: object) -> Task:
    if not _is_whole(target):
        raise ValueError(f"target must be a whole number of at most {LARGEST:g}; found {str(target)[:40]}")
    if not isinstance(numbers, Sequence) or isinstance(numbers, str) or not 0 < len(numbers) <= MOST:
        raise ValueError(f"numbers must be a list of 1 to {MOST} whole numbers; found {str(numbers)[:40]}")
    if wrong := [number for number in numbers if not _is_whole(number)]:
        raise ValueError(f"numbers must be whole numbers of at most {LARGEST:g}; found {str(wrong[0])[:40]}")
    return Task(target, tuple(numbers))  # type: ignore[arg-type]


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST
