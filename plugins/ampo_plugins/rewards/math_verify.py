"""Mathematical equality, by the Math-Verify library."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

from ampo_registry import Grade, GradeRequest, RewardSpec
from pydantic import Field

from ampo_plugins.rewards.answer_tags import tagged_answer

STRING_ONLY = "Math-Verify parses it only as a string, so another way to write it counts as wrong"


class MathVerify(RewardSpec):
    """Correct iff the answer equals the ground truth as mathematics (Eq. 8).

    The answer is the content of the last `<answer>…</answer>`, else the whole text. `string_truths` says what
    happens to a ground truth that Math-Verify can only compare letter by letter: its question is kept and listed,
    or left out.
    """

    type: Literal["math_verify"] = "math_verify"
    string_truths: Literal["accept", "refuse"] = Field(
        default="accept", description="a ground truth that parses only as a string: keep and list it, or leave it out"
    )

    def grade(self, requests: Sequence[GradeRequest]) -> list[Grade]:
        return [
            self.combine(answers_equal(request.text, request.answer), self.formatted(request.text))
            for request in requests
        ]

    def check_truth(self, answer: str) -> str | None:
        if not answer.strip():
            return "it is empty"
        parsed = _parse_boxed(answer)
        if not parsed:
            return "Math-Verify cannot parse it"
        return STRING_ONLY if self.string_truths == "refuse" and _string_only(parsed) else None

    def note_truth(self, answer: str) -> str | None:
        return STRING_ONLY if _string_only(_parse_boxed(answer)) else None

    def canaries(self) -> Sequence[tuple[GradeRequest, bool]]:
        return (
            (GradeRequest("so <answer> \\frac{2}{4} </answer>", "0.5"), True),
            (GradeRequest("so <answer> 41 </answer>", "42"), False),
        )


def answers_equal(text: str, truth: str) -> bool:
    """Whether the answer of the response `text` equals the ground truth. May run for very long: needs a deadline."""
    from math_verify import verify

    tagged = tagged_answer(text)
    answer = _parse(text) if tagged is None else _parse_boxed(tagged)
    # Math-Verify's own timeouts rest on signal.alarm; the core's workers have the deadline.
    return bool(verify(_parse_boxed(truth), answer, timeout_seconds=None))


def _string_only(parsed: Sequence[object]) -> bool:
    return all(isinstance(value, str) for value in parsed)


def _parse_boxed(content: str) -> list[Any]:
    return list(_remembered(content))


# Parsing is most of the work, and a group asks for one ground truth and few different answers.
@lru_cache(maxsize=1024)
def _remembered(content: str) -> tuple[Any, ...]:
    return tuple(_parse("\\boxed{" + content + "}"))


def _parse(text: str) -> list[Any]:
    from math_verify import parse

    # It warns about every disabled timeout.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    parsed: list[Any] = parse(text, parsing_timeout=None)
    return parsed
