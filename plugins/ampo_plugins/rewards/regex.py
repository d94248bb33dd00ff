"""An answer that a pattern finds, as evaluations of GSM8K read it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from ampo_registry import Grade, GradeRequest
from pydantic import Field, model_validator

from ampo_plugins.rewards.answer_tags import without_thoughts
from ampo_plugins.rewards.exact import TextReward


class Regex(TextReward):
    """Correct iff what `pattern` finds in the response is the ground truth, compared as `exact` does (Eq. 8).

    What is found is the pattern's first group that holds something, or without groups all of the match. A response is
    in the asked format if anything is found. `#### (-?[0-9.,]+)` is the strict match of GSM8K.
    """

    type: Literal["regex"] = "regex"
    pattern: str = Field(min_length=1, description="a regular expression of Python, such as `#### (-?[0-9.,]+)`")
    take: Literal["last", "first"] = Field(default="last", description="which match, where there are several")
    example: str | None = Field(
        default=None, description="a response in the asked form: refused where the pattern finds nothing in it"
    )

    @model_validator(mode="after")
    def _check(self) -> Regex:
        try:
            _compiled(self.pattern)
        except re.error as error:
            place = "" if error.pos is None else f" at character {error.pos + 1}"
            raise ValueError(f"pattern: {error.msg}{place}; found {self.pattern!r}") from None
        if self.example is not None and not self.normal(self._found(self.example) or ""):
            raise ValueError(f"pattern: {self.pattern!r} finds nothing in the example {self.example!r}")
        return self

    def grade(self, requests: Sequence[GradeRequest]) -> list[Grade]:
        found = [self._found(request.text) for request in requests]
        pairs = zip(found, requests, strict=True)
        return [self.combine(self.same(answer, request.answer), answer is not None) for answer, request in pairs]

    def formatted(self, text: str) -> bool:
        """True iff the pattern finds something."""
        return self._found(text) is not None

    def canaries(self) -> Sequence[tuple[GradeRequest, bool]]:
        """The example, with what is found in it and with something else."""
        if self.example is None or (found := self._found(self.example)) is None:
            return ()
        return (GradeRequest(self.example, found), True), (GradeRequest(self.example, f"{found} not"), False)

    def _found(self, text: str) -> str | None:
        """May run for very long on some patterns: needs a deadline."""
        text = without_thoughts(text) if self.skip_thoughts else text
        found = None
        for match in _compiled(self.pattern).finditer(text):
            said = next((group for group in match.groups() if group), None) if match.re.groups else match[0]
            if said and said.strip():
                found = said.strip()
                if self.take == "first":
                    break
        return found


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
