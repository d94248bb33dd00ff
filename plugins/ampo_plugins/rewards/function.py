"""A function of a person's own as a reward, in the form that verl or TRL calls it in."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Awaitable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Literal

from ampo_registry import BuildContext, Grade, GradeRequest, PluginError, PluginFunction, Reward, RewardSpec
from ampo_registry.faults import describe, place_of
from ampo_registry.step import CORE
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, model_validator

from ampo_plugins.rewards.calls import NoColumn, as_messages, call, misfit, number_of

Span = tuple[FiniteFloat, FiniteFloat]


class Pays(BaseModel):
    """The least and the most that the function gives a wrong response, and a right one."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    wrong: Span
    right: Span


class Function(RewardSpec):
    """What a function of a file named with `--plugin` gives, as verl or TRL would call it.

    `verl`: compute_score(data_source, solution_str, ground_truth, extra_info, **arguments) gives a number, or a mapping
    with `score` and further numbers, which become metrics. `trl`: f(prompts, completions, **columns, **arguments) gives
    a list with a number or None; it is called with one response at a time. The score is the reward, and a response is
    correct from `correct_from` on.
    """

    type: Literal["function"] = "function"
    function: PluginFunction = Field(description="its name; FILE.NAME where several files have one")
    style: Literal["verl", "trl"] = Field(description="how it is called")
    arguments: dict[str, JsonValue] = Field(default_factory=dict, description="further arguments, by name")
    correct_from: FiniteFloat = Field(default=1.0, description="the score from which a response is correct")
    pays: Pays | None = Field(
        default=None,
        description="{wrong: [least, most], right: [least, most]}: its scores; another one is an error. With it, "
        "guidance.threshold is checked",
    )
    none: Literal["no_verdict", "zero"] = Field(
        default="no_verdict", description="what None means: the response has no verdict, or earns 0 and is wrong"
    )
    conversational: bool | None = Field(
        default=None,
        description="trl: prompts and completions are lists of messages; false = texts; null = as TRL: texts where "
        "the row's prompt is one",
    )
    truth: Literal["answer", "other"] = Field(
        default="answer",
        description="other: a ground truth is no answer that comprehension can score, but a constraint",
    )
    format_weight: float = Field(
        default=0.0, ge=0.0, le=1.0, description="λ: share of the format, (1 − λ)·score + λ·formatted"
    )

    @model_validator(mode="after")
    def _check(self) -> Function:
        if fault := misfit(self.function.load(), self.style, self.arguments):
            raise ValueError(f"{self.function} does not fit style {self.style}: {fault}")
        if self.pays is not None and not (
            self.pays.wrong[0] <= self.pays.wrong[1] < self.correct_from <= self.pays.right[0] <= self.pays.right[1]
        ):
            raise ValueError(
                f"pays: expected wrong [least, most] below correct_from {self.correct_from:g} and right [least, most] "
                f"from there on; found wrong {list(self.pays.wrong)}, right {list(self.pays.right)}"
            )
        return self

    @property
    def truth_is_answer(self) -> bool:  # type: ignore[override]
        """As `truth` says."""
        return self.truth == "answer"

    def build(self, context: BuildContext) -> Reward:
        return _Called(self)

    def earns(self, correct: bool) -> tuple[float, float] | None:
        """As `pays` says, None without it."""
        if self.pays is None:
            return None
        least, most = self.pays.right if correct else self.pays.wrong
        return (1.0 - self.format_weight) * least, (1.0 - self.format_weight) * most + self.format_weight

    def combine(self, correct: bool, formatted: bool) -> Grade:
        """The least that the function gives a right response, or a wrong one: 0 where that is not known."""
        known = (self.correct_from, 0.0) if self.pays is None else (self.pays.right[0], self.pays.wrong[0])
        return self.paid(known[0 if correct else 1], formatted)

    def paid(self, score: float, formatted: bool) -> Grade:
        """The grade of a response with this score."""
        reward = (1.0 - self.format_weight) * score + self.format_weight * formatted
        return Grade(reward, score >= self.correct_from, formatted)


class _Called:
    """The function, loaded."""

    def __init__(self, spec: Function) -> None:
        self._spec, self._function = spec, spec.function.load()
        self._name = str(spec.function)

    def grade(self, requests: Sequence[GradeRequest]) -> list[Grade]:
        """Raises PluginError that says where the function raised, or what it gave."""
        return [self._grade(request) for request in requests]

    def check_truth(self, answer: str) -> str | None:
        return None if answer.strip() else "it is empty"

    def _grade(self, request: GradeRequest) -> Grade:
        spec, formatted = self._spec, self._spec.formatted(request.text)
        score, numbers = self._read(self._given(request))
        if score is None and spec.none == "zero":
            return replace(spec.paid(0.0, formatted), correct=False)
        if score is None:
            said = f"{self._name} gave None, which reward.none says is no verdict"
            return replace(spec.combine(False, formatted), status="error", detail=said)
        spans = () if spec.pays is None else (spec.pays.wrong, spec.pays.right)
        if spans and not any(least <= score <= most for least, most in spans):
            raise PluginError(f"{self._name} gave {score:g}, which is in neither span of reward.pays")
        return replace(spec.paid(score, formatted), numbers=numbers)

    def _given(self, request: GradeRequest) -> object:
        """What the function gives for this response."""
        spec = self._spec
        try:
            given = call(
                self._function, spec.style, request, deepcopy(spec.arguments), conversational=spec.conversational
            )
            return asyncio.run(_awaited(given)) if isinstance(given, Awaitable) else given
        except MemoryError:  # the worker must see it as what it is
            raise
        except NoColumn as error:
            raise PluginError(f"{self._name}: {error}") from None
        except Exception as error:
            file = getattr(sys.modules.get(spec.function.module), "__file__", None) or ""
            place = place_of(error, [file]) or place_of(error)
            at = f" at {place}" if place else ""
            hint = ""
            if spec.style == "trl" and isinstance(error, TypeError | AttributeError):
                hint = "; completions are texts here, and messages with reward.conversational: true"
                if as_messages(request, spec.conversational):
                    hint = "; completions are messages here, and texts with reward.conversational: false"
            raise PluginError(f"{self._name} raised {describe(error)}{at}{hint}") from error

    def _read(self, given: object) -> tuple[float | None, dict[str, float]]:
        """The score, None where there is no verdict, and the numbers beside it."""
        if self._spec.style == "trl" and hasattr(given, "tolist"):  # an array or a tensor
            given = given.tolist()
        found, spec, shown = given, self._spec, _shown(given)
        if spec.style == "trl":
            if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 1:
                raise PluginError(f"{self._name} gave {shown}, expected a list of one number or None")
            found = given[0]
        elif isinstance(given, Mapping):
            if "score" not in given:
                raise PluginError(f"{self._name} gave {shown}, expected a number, or a mapping with score")
            found = given["score"]
        elif isinstance(given, list | tuple) and given:  # verl takes the first, too
            found = given[0]
        score = number_of(found)
        if (score is None and found is not None) or (score is not None and not math.isfinite(score)):
            raise PluginError(f"{self._name} gave {shown}, expected a finite number")
        beside = given if spec.style == "verl" and isinstance(given, Mapping) else {}
        read = {str(name): number_of(value) for name, value in beside.items() if name != "score"}
        numbers = {name: value for name, value in read.items() if value is not None}
        if odd := [name for name, value in numbers.items() if not math.isfinite(value)]:
            raise PluginError(f"{self._name} gave {shown}, expected finite numbers beside score, too; see {odd[0]}")
        return score, {f"{self._metric}/{name}": value for name, value in numbers.items()}

    @property
    def _metric(self) -> str:
        """What the names of its numbers begin with."""
        name = self._spec.function.name
        return f"function_{name}" if f"{name}/" in CORE else name


async def _awaited(given: Awaitable[object]) -> object:
    return await given


def _shown(given: object) -> str:
    """The beginning of what was given, by its type where that cannot be written."""
    try:
        return f"{given!r:.80}"
    except Exception:  # a whole number of thousands of digits, or a __repr__ that raises
        return f"a {type(given).__name__}"
