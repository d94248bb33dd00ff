"""Mathematical equality, by the Math-Verify library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from ampo_registry import Grade, GradeRequest, RewardSpec
from ampo_registry.text import last_box
from pydantic import Field

from ampo_plugins.rewards import library
from ampo_plugins.rewards.answer_tags import tagged_answer, without_thoughts
from ampo_plugins.rewards.claims import names_several
from ampo_plugins.rewards.normalise import characters, normalised, with_powers
from ampo_plugins.rewards.numbers import read_number, same_number

STRING_ONLY = "Math-Verify parses it only as a string, so another way to write it counts as wrong"


class MathVerify(RewardSpec):
    """Correct iff the answer equals the ground truth as mathematics (Eq. 8).

    The answer is the content of the last `<answer>…</answer>`, else what `untagged` says. `string_truths` says what
    happens to a ground truth that Math-Verify can only compare letter by letter: its question is kept and listed,
    or left out. The released program does without all that is on by default.
    """

    type: Literal["math_verify"] = "math_verify"
    string_truths: Literal["accept", "refuse"] = Field(
        default="accept", description="a ground truth that parses only as a string: keep and list it, or leave it out"
    )
    normalise: bool = Field(
        default=True, description="read punctuation, markdown, Unicode signs and a sentence around an answer"
    )
    exact_numbers: bool = Field(
        default=True, description="compare numbers by value and significant digits, not rounded to six decimals"
    )
    one_answer: bool = Field(default=True, description="an answer that names several values counts as wrong")
    skip_thoughts: bool = Field(default=True, description="tags inside `<think>…</think>` do not count")
    untagged: Literal["whole", "boxed", "wrong"] = Field(
        default="whole", description="without tags: read the whole text, the last box, or nothing"
    )

    def grade(self, requests: Sequence[GradeRequest]) -> list[Grade]:
        return [
            self.combine(self._correct(request.text, request.answer), self.formatted(request.text))
            for request in requests
        ]

    def check_truth(self, answer: str) -> str | None:
        if not answer.strip():
            return "it is empty"
        if not library.parsed(self._written(answer)):
            return "Math-Verify cannot parse it"
        return STRING_ONLY if self.string_truths == "refuse" and self._string_only(answer) else None

    def note_truth(self, answer: str) -> str | None:
        if self._string_only(answer):
            return STRING_ONLY
        written = self._written(answer)
        return None if self.exact_numbers and read_number(written) else library.lost(written)

    def canaries(self) -> Sequence[tuple[GradeRequest, bool]]:
        # no plain numbers: Math-Verify itself must answer, and a worker imports it here, where no deadline runs
        return (
            (GradeRequest("so <answer> \\sqrt{8} </answer>", "2\\sqrt{2}"), True),
            (GradeRequest("so <answer> \\sqrt{8} </answer>", "3\\sqrt{2}"), False),
        )

    def _correct(self, text: str, truth: str) -> bool:
        """Whether the response `text` is right. May run for very long: needs a deadline."""
        outside = without_thoughts(text) if self.skip_thoughts else text
        answer = tagged_answer(outside, any_case=self.normalise)
        if answer is None and self.untagged != "whole":
            answer = last_box(outside) or "" if self.untagged == "boxed" else ""
        if answer is None:
            whole = with_powers(characters(outside)) if self.normalise else outside
            return library.equal(self._readings(truth), library.parsed_text(whole), self.exact_numbers)
        return bool(answer) and self._same(self._written(truth), self._written(answer))

    def _same(self, truth: str, answer: str) -> bool:
        if self.exact_numbers and (right := read_number(truth)) and (number := read_number(answer, named=True)):
            return same_number(right, number)
        powers = with_powers(answer) if self.normalise else answer
        equal = library.equal(self._readings(truth), library.parsed(powers), self.exact_numbers)
        return equal and not (self.one_answer and names_several(answer, truth))

    def _written(self, content: str) -> str:
        return normalised(content) if self.normalise else content

    def _string_only(self, truth: str) -> bool:
        written = self._written(truth)
        return not (self.exact_numbers and read_number(written)) and library.string_only(written)

    def _readings(self, truth: str) -> list[Any]:
        """What Math-Verify reads as the ground truth; `2e-5` both as a power of ten and as 2·e − 5."""
        written = self._written(truth)
        powers = with_powers(written) if self.normalise else written
        return library.parsed(powers) + (library.parsed(written) if powers != written else [])
