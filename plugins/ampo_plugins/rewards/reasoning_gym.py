"""What the scorer of a Reasoning Gym data set says of an answer."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from ampo_registry import BuildContext, ConfigError, Grade, GradeRequest, PluginError, Reward, RewardSpec
from ampo_registry.faults import describe
from ampo_registry.text import last_box
from pydantic import Field

from ampo_plugins.gym import answers, datasets
from ampo_plugins.gym.entries import from_text, to_text
from ampo_plugins.rewards.answer_tags import tagged_answer, without_thoughts

MADE = "files for this reward are made by the job prepare with `task: {type: reasoning_gym, …}`"


class ReasoningGym(RewardSpec):
    """The score, 0 to 1, that the data set's own `score_answer` gives the answer, with the whole entry at hand.

    The answer is the content of the last `<answer>…</answer>`, else of the last `\\boxed{…}`; a response without one
    scores 0. It is correct from `correct_from` on.
    """

    type: Literal["reasoning_gym"] = "reasoning_gym"
    truth_is_answer: ClassVar[bool] = False
    logs: ClassVar[tuple[str, ...]] = ("reasoning_gym/not_scored",)

    correct_from: float = Field(default=1.0, gt=0.0, le=1.0, description="the score from which a response is correct")
    partial: bool = Field(default=True, description="a score between counts as it is; false: only right or wrong does")
    untagged: Literal["boxed", "whole", "wrong"] = Field(
        default="boxed", description="without tags: the last box, the whole response, or nothing is the answer"
    )
    skip_thoughts: bool = Field(default=True, description="tags inside `<think>…</think>` do not count")
    format_weight: float = Field(
        default=0.0, ge=0.0, le=1.0, description="λ: share of the format, (1 − λ)·score + λ·formatted"
    )

    def unavailable(self) -> str | None:
        """A reason if the package is missing, else None."""
        return datasets.unavailable()

    def build(self, context: BuildContext) -> Reward:
        """Raises ConfigError where the package is missing."""
        if reason := self.unavailable():
            raise ConfigError(f"reward reasoning_gym: {reason}")
        importlib.import_module(datasets.PACKAGE)  # seconds, which would be the first answer's
        return self

    def grade(self, requests: Sequence[GradeRequest]) -> list[Grade]:
        """Raises PluginError for a row that this task has not made, and for a score that is none."""
        return [self._grade(request) for request in requests]

    def check_truth(self, answer: str) -> str | None:
        return None if answer.strip() else "it is empty"

    def check_row(self, row: Mapping[str, object]) -> str | None:
        """Why the row is none that this task has made."""
        try:
            _entry_of(row)
        except PluginError as error:
            return str(error)
        return None

    def canaries(self) -> Sequence[tuple[GradeRequest, bool]]:
        entry = {"question": "2 + 3 =", "answer": "5", "metadata": {"difficulty": {"num_terms": (2, 2)}}}
        row = {"extra_info": {"dataset": "chain_sum", "options": "{}", "entry": to_text(entry)}}
        return tuple(
            (GradeRequest(f"so <answer> {said} </answer>", "5", extra=row), said == "5") for said in ("5", "6")
        )

    def earns(self, correct: bool) -> tuple[float, float] | None:
        """As Eq. 8 where only right or wrong counts; a wrong answer's part of the score is not known."""
        return None if self.partial else super().earns(correct)

    def _grade(self, request: GradeRequest) -> Grade:
        name, options, entry = _entry_of(request.extra)
        answer, formatted = self._answer(request.text), self.formatted(request.text)
        score, why = 0.0, ""
        if answer is not None and answers.withheld(name, answer, entry):
            why = f"the scorer of {name} runs answers as Python, and was not given this one"
        elif answer is not None:
            score, why = _score(name, options, answer, entry)
        correct = score >= self.correct_from
        earned = score if self.partial else float(correct)
        numbers = {"reasoning_gym/not_scored": float(bool(why)), f"reasoning_gym/{name}": score}
        reward = (1.0 - self.format_weight) * earned + self.format_weight * formatted
        return Grade(reward, correct, formatted, detail=why, numbers=numbers)

    def _answer(self, text: str) -> str | None:
        outside = without_thoughts(text) if self.skip_thoughts else text
        answer = tagged_answer(outside, any_case=True)
        if answer is None and self.untagged != "wrong":
            answer = last_box(outside)
        return outside.strip() if answer is None and self.untagged == "whole" else answer


def _entry_of(row: Mapping[str, object]) -> tuple[str, str, dict[str, Any]]:
    """The data set that a question is from, its options as JSON text, and the entry."""
    info = row.get("extra_info")
    found = [info.get(name) for name in ("dataset", "options", "entry")] if isinstance(info, Mapping) else [None]
    if not all(isinstance(text, str) for text in found):
        raise PluginError(f"the row lacks extra_info.dataset, options or entry: {MADE}")
    name, options, text = map(str, found)
    try:
        entry = from_text(text)
    except (ValueError, TypeError) as error:
        raise PluginError(f"extra_info.entry cannot be read: {describe(error)}; {MADE}") from None
    if not answers.trusted(name, entry):
        raise PluginError(f"extra_info.entry holds what the scorer of {name} would run, and no answer of its kind")
    return name, options, entry


def _score(name: str, options: str, answer: str, entry: dict[str, Any]) -> tuple[float, str]:
    """The score, and why there is none: many scorers raise on an answer of another form than they expect."""
    scorer = datasets.scorer(name, options)
    try:
        found = scorer.score_answer(answer, entry)
    except (MemoryError, KeyError, AttributeError):  # not the answer's doing
        raise
    except Exception as error:
        return 0.0, f"the scorer of {name} raised {describe(error)}"
    score = float(found)
    if not math.isfinite(score) or not 0.0 <= score <= 1.0:
        raise PluginError(f"the scorer of {name} gave {found!r:.40}, expected a number from 0 to 1")
    return score, ""
