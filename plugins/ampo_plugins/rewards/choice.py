"""Multiple choice by letter, for ARC-c, GPQA and MMLU-Pro."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from ampo_registry import Grade, GradeRequest, RewardSpec
from pydantic import Field

from ampo_plugins.rewards.answer_tags import tagged_answer, without_thoughts
from ampo_plugins.rewards.normalise import characters

_OPEN = r"(?:\\(?:boxed|text|textbf|mathrm|mathbf|mathsf|mathit)\{|\\[(\[]|[\s($\[*{\"'“‘`])*"
_CLOSE = r"(?:\\[)\]]|[\s)$\]*}.:,;\"'”’`])*"
# A letter that stands alone: "B", "(b).", "$\boxed{\text{B}}$", "Option B,".
_ALONE = re.compile(rf"{_OPEN}(?:(?i:option|choice)\s+{_OPEN})?([A-Ja-j]){_CLOSE}")
# A letter that labels its option's text: "B) 42", "(B) 42", "B. Paris", "B - Paris".
_LABEL = re.compile(rf"{_OPEN}(?:(?i:option|choice)\s+{_OPEN})?([A-J])(?:\s*[).:\]*}}]+\s|\s+[-–—]\s)")
# What models write without tags. "A" and "I" are words too, so letters are capitals here and these two end a phrase.
_LETTER = rf"{_OPEN}((?-i:[B-HJ]|[AI](?!\s+[a-z])))(?![A-Za-z'’])"
_STATED = re.compile(
    r"(?:answer|correct (?:option|choice))\**\s*(?:(?:is|would be|must be)\b)?\s*:?\s*(?:(?:option|choice)\s+)?"
    rf"{_LETTER}|\b(?:option|choice)\s+{_OPEN}((?-i:[A-J])){_CLOSE}\s*is\s+(?:the\s+)?(?:correct|right|answer)\b",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\boxed\{\s*(?:\\(?:text|mathrm|mathbf|textbf)\{)?\s*\(?([A-J])(?=[\s)}.:])[^{}]*\}")
# A second letter: offered right behind the first one, "B) or C)", or as a label further on, "A) one B) two".
_OFFERED = re.compile(
    rf"(?:\s|[).:\]*}}$,;/|&\"'”]|\\[)\]]|\b(?:or|and)\b)*{_OPEN}(?:(?i:option|choice)\s+)?([A-J])(?![A-Za-z'’]|\s+[a-z])"
)
_FURTHER = re.compile(r"(?:(?<=\s)\(?|\()([A-J])\)|^\s*([A-J])[.:]\s", re.MULTILINE)


class Choice(RewardSpec):
    """Correct iff the response chooses the letter (A to J) of the ground truth.

    The letter comes from the last `<answer>…</answer>`; without tags from the last `\\boxed{…}`, else the last
    phrase like "the answer is (B)" or "option B is correct", else a text that is nothing but a letter.
    """

    type: Literal["choice"] = "choice"
    one_answer: bool = Field(default=True, description="an answer that names a second, different letter names none")
    skip_thoughts: bool = Field(default=True, description="tags inside `<think>…</think>` do not count")

    def grade(self, requests: Sequence[GradeRequest]) -> list[Grade]:
        return [
            self.combine(self._letter(request.text) == request.answer.strip().upper(), self.formatted(request.text))
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

    def _letter(self, text: str) -> str | None:
        return chosen_letter(without_thoughts(text) if self.skip_thoughts else text, self.one_answer)


def chosen_letter(text: str, one_answer: bool = True) -> str | None:
    """The letter that the response chooses, as a capital; None if it names none, or with `one_answer` several."""
    tagged = tagged_answer(text, any_case=True)
    content = characters(text if tagged is None else tagged)
    alone = _ALONE.fullmatch(content)
    if alone:
        return alone[1].upper()
    found = _LABEL.match(content) if tagged is not None else None
    found = found or _last(_BOXED, content) or _last(_STATED, content)
    if found is None:
        return None
    letter = next(group for group in found.groups() if group)
    return None if one_answer and _second(letter, content, found, tagged is not None) else letter


def _last(pattern: re.Pattern[str], content: str) -> re.Match[str] | None:
    return max(pattern.finditer(content), key=re.Match.start, default=None)


def _second(letter: str, content: str, found: re.Match[str], tagged: bool) -> bool:
    """Whether another letter is chosen too."""
    place = found.start(found.lastindex or 1) + 1
    offered = _OFFERED.match(content, place)
    further = [label[1] or label[2] for label in _FURTHER.finditer(content, place)] if tagged else []
    return any(other != letter for other in ([offered[1]] if offered else []) + further)
