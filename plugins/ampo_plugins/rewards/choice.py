"""Multiple choice by letter, for ARC-c, GPQA and MMLU-Pro."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from ampo_registry import Grade, GradeRequest, RewardSpec

from ampo_plugins.rewards.answer_tags import tagged_answer

_WRAPPED = r"(?:\\boxed\{|\\text\{|\\mathrm\{|\\textbf\{|[\s($\[*{])*"
# A letter that stands alone: "B", "(b).", "$\boxed{\text{B}}$".
_ALONE = re.compile(rf"{_WRAPPED}([A-Ja-j])[\s)$\]*}}.:]*")
# A letter that labels its option's text: "B) 42", "(B) 42", "B. Paris".
_LABEL = re.compile(r"[\s(\[*]*([A-J])\s*[).:\]*]+\s")
# What models write without tags. "A" and "I" are words too, so letters are capitals here and these two end a phrase.
_STATED = re.compile(
    r"(?:answer|correct (?:option|choice))\**\s*(?:(?:is|would be|must be)\b)?\s*:?\s*(?:(?:option|choice)\s+)?"
    rf"{_WRAPPED}((?-i:[B-HJ]|[AI](?!\s+[a-z])))(?![A-Za-z'’])",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\boxed\{\s*(?:\\(?:text|mathrm|textbf)\{)?\s*\(?([A-J])\)?\s*\}")


class Choice(RewardSpec):
    """Correct iff the response chooses the letter (A to J) of the ground truth.

    The letter comes from the last `<answer>…</answer>`; without tags from the last `\\boxed{…}`, else the last
    phrase like "the answer is (B)", else a text that is nothing but a letter.
    """

    type: Literal["choice"] = "choice"

    def grade(self, requests: Sequence[GradeRequest]) -> list[Grade]:
        return [
            self.combine(chosen_letter(request.text) == request.answer.strip().upper(), self.formatted(request.text))
            for request in requests
        ]

    def check_truth(self, answer: str) -> str | None:
        if re.fullmatch(r"[A-Ja-j]", answer.strip()):
            return None
        return "it is not a letter from A to J"

    def canaries(self) -> Sequence[tuple[GradeRequest, bool]]:
        return (
            (GradeRequest("so <answer> (B) </answer>", "B"), True),
            (GradeRequest("so <answer> A </answer>", "B"), False),
        )


def chosen_letter(text: str) -> str | None:
    """The letter that the response chooses, as a capital; None if it names none."""
    tagged = tagged_answer(text)
    content = text if tagged is None else tagged
    alone = _ALONE.fullmatch(content)
    if alone:
        return alone[1].upper()
    label = _LABEL.match(content) if tagged is not None else None
    if label:
        return label[1]
    for pattern in (_BOXED, _STATED):
        found = pattern.findall(content)
        if found:
            return str(found[-1])
    return None
