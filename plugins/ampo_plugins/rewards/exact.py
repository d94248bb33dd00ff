"""Equality as text, for answers that are names, words or plain numbers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

from ampo_registry import Grade, GradeRequest, RewardSpec
from ampo_registry.text import last_box
from pydantic import Field

from ampo_plugins.rewards.answer_tags import tagged_answer, without_thoughts
from ampo_plugins.rewards.normalise import characters

_NUMBER = re.compile(r"[-+]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?", re.ASCII)
_AROUND = "\"'`*“”‘’«»"
_AT_END = ".,;:!?。、" + _AROUND


class TextReward(RewardSpec):
    """Base of the rewards that compare texts."""

    ignore_case: bool = Field(default=True, description="`Paris` is `PARIS`")
    punctuation: Literal["end", "all", "keep"] = Field(
        default="end", description="leave out that at the end, and quotes and stars around; all of it; or none"
    )
    numbers: bool = Field(default=True, description="plain numbers by value: `1,007`, `$1007` and `1007.0` are one")
    skip_thoughts: bool = Field(default=True, description="what stands inside `<think>…</think>` does not count")

    def check_truth(self, answer: str) -> str | None:
        if not answer.strip():
            return "it is empty"
        return None if self.normal(answer) else "nothing of it is left to compare"

    def same(self, answer: str | None, truth: str) -> bool:
        """Whether an answer is the ground truth; none never is."""
        normal = self.normal(answer or "")
        return bool(normal) and normal == self.normal(truth)

    def normal(self, text: str) -> str:
        """What is compared of a text: Unicode in its plain form (NFKC), single blanks, the rest as the options say."""
        text = " ".join(unicodedata.normalize("NFKC", characters(text)).split())
        if self.numbers and (number := _number(text.rstrip(_AT_END).lstrip(_AROUND) or text)) is not None:
            return number
        if self.ignore_case:
            text = text.casefold()
        if self.punctuation == "all":
            text = "".join(sign for sign in text if unicodedata.category(sign)[0] != "P")
        elif self.punctuation == "end":
            text = text.rstrip(_AT_END).lstrip(_AROUND)
        return " ".join(text.split())


class Exact(TextReward):
    """Correct iff the answer is the ground truth, letter by letter once both are normalised (Eq. 8).

    The answer is the content of the last `<answer>…</answer>`, else of the last `\\boxed{…}`, else what `untagged`
    says. Case, blanks, forms of the same character in Unicode and punctuation at the end do not count.
    """

    type: Literal["exact"] = "exact"
    untagged: Literal["whole", "wrong"] = Field(
        default="whole", description="without tags and box: the whole response is the answer, or there is none"
    )

    def grade(self, requests: Sequence[GradeRequest]) -> list[Grade]:
        return [
            self.combine(self.same(self._answer(request.text), request.answer), self.formatted(request.text))
            for request in requests
        ]

    def canaries(self) -> Sequence[tuple[GradeRequest, bool]]:
        return (
            (GradeRequest("so <answer> New  York </answer>", "New York"), True),
            (GradeRequest("so <answer> York </answer>", "New York"), False),
            (GradeRequest("so \\boxed{1007}", "1007"), True),
        )

    def _answer(self, text: str) -> str | None:
        text = without_thoughts(text) if self.skip_thoughts else text
        answer = tagged_answer(text, any_case=True)
        answer = last_box(text) if answer is None else answer
        return text if answer is None and self.untagged == "whole" else answer


def _number(text: str) -> str | None:
    """A plain number in one way to write it; None for what is none."""
    if len(text) > 100 or not _NUMBER.fullmatch(text) or not any(map(str.isdigit, text)):
        return None
    value = Decimal(text.replace(",", "").replace("$", ""))
    whole = value == value.to_integral_value()
    return str(int(value)) if whole else f"{value:f}".rstrip("0")
