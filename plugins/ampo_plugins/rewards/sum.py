"""A reward made of others: the weighted sum of what each gives."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from ampo_registry import BuildContext, ComponentField, Grade, GradeRequest, PluginError, Reward, RewardSpec
from ampo_registry.specs import component_name
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

OF_THE_WHOLE = ("timeout_s", "workers", "max_error_rate")
"""Options that hold for all parts together: those of the sum."""
Span = tuple[float, float]
"""The least and the most."""
PENALTIES = ("repetition_penalty", "overlong_penalty")


class Part(BaseModel):
    """A reward and how much of it counts. `decides`: the response is correct only if this part says so."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    reward: Annotated[RewardSpec, ComponentField("reward")]
    weight: FiniteFloat = 1.0
    decides: bool = False
    name: str | None = Field(default=None, pattern=r"^[\w.-]+$")

    @property
    def called(self) -> str:
        """Its name in metrics: that of the reward, unless it has one."""
        return self.name or component_name(type(self.reward))

    def adds(self) -> tuple[Span, Span] | None:
        """The least and the most that it adds to the sum for a response that it finds wrong, and for one that it finds
        right; None where the reward does not say."""
        wrong, right = self.reward.earns(False), self.reward.earns(True)
        return None if wrong is None or right is None else (self._weighed(wrong), self._weighed(right))

    def _weighed(self, span: Span) -> Span:
        ends = [self.weight * end for end in span]
        return min(ends), max(ends)


class Sum(RewardSpec):
    """Σ weight · reward of the parts, each with its own share of the format.

    A response is correct, and formatted, if all parts that decide say so; where none is marked, the first does. A
    ground truth must be one for every part. Each part's reward is a metric, `sum/NAME`. Deadline, workers and penalties
    are those of the sum.
    """

    type: Literal["sum"] = "sum"
    format_weight: float = Field(
        default=0.0, ge=0.0, le=1.0, description="λ: share of the format beside the parts, (1 − λ)·Σ + λ·formatted"
    )
    parts: tuple[Part, ...] = Field(
        min_length=1,
        description="{reward, weight, decides, name}: the parts, `decides` for those that say what is correct",
    )

    @model_validator(mode="after")
    def _check_parts(self) -> Sum:
        repeated = [name for name, count in Counter(self.logs).items() if count > 1]
        if repeated:
            raise ValueError(f"two parts give the metric {repeated[0]}: give one of them a name of its own")
        for part in self.parts:
            if any(getattr(part.reward, name) is not None for name in PENALTIES):
                raise ValueError(f"part {part.called} has a penalty: {' and '.join(PENALTIES)} stand beside the parts")
        return self

    @property
    def deciding(self) -> tuple[Part, ...]:
        """The parts that say whether a response is correct."""
        return tuple(part for part in self.parts if part.decides) or self.parts[:1]

    @property
    def logs(self) -> tuple[str, ...]:  # type: ignore[override]
        """The reward of each part, and what the parts log themselves."""
        return (*(f"sum/{part.called}" for part in self.parts), *(name for p in self.parts for name in p.reward.logs))

    @property
    def truth_is_answer(self) -> bool:  # type: ignore[override]
        """Whether it is one for every part that decides."""
        return all(part.reward.truth_is_answer for part in self.deciding)

    def warnings(self) -> Sequence[tuple[str, str]]:
        text = "does nothing in a part: one deadline, and the same workers, serve all parts"
        return [
            ("parts", f"{p.called}: {name} {text}")
            for p in self.parts
            for name in OF_THE_WHOLE
            if name in p.reward.model_fields_set
        ]

    def build(self, context: BuildContext) -> Reward:
        """Raises PluginError if a part gets one of its own canaries wrong."""
        built = [context.build(part.reward, part.called) for part in self.parts]
        for part, reward in zip(self.parts, built, strict=True):
            for request, correct in part.reward.canaries():
                if reward.grade([request])[0].correct is not correct:
                    said = "correct" if correct else "wrong"
                    raise PluginError(f"part {part.called} is broken here: {request.text!r} must be {said}")
        return _Sum(self, built)

    def note_truth(self, answer: str) -> str | None:
        found = [(part.called, part.reward.note_truth(answer)) for part in self.parts]
        return "; ".join(f"{name}: {note}" for name, note in found if note) or None

    def check_row(self, row: Mapping[str, object]) -> str | None:
        found = [(part.called, part.reward.check_row(row)) for part in self.parts]
        return "; ".join(f"{name}: {why}" for name, why in found if why is not None) or None

    def earns(self, correct: bool) -> Span | None:
        """None where a part does not say. A right response is right for all parts that decide, a wrong one is wrong
        for one of them at least; the other parts may say either."""
        parts = [spans for part in self.parts if (spans := part.adds()) is not None]
        if len(parts) < len(self.parts):
            return None
        deciding = [i for i, part in enumerate(self.parts) if part in self.deciding]
        ways = [dict.fromkeys(deciding, True)] if correct else [{i: False} for i in deciding]
        totals = [_added(parts, said) for said in ways]
        least, most = min(total[0] for total in totals), max(total[1] for total in totals)
        return (1.0 - self.format_weight) * least, (1.0 - self.format_weight) * most + self.format_weight

    def formatted(self, text: str) -> bool:
        return all(part.reward.formatted(text) for part in self.deciding)


class _Sum:
    def __init__(self, spec: Sum, parts: Sequence[Reward]) -> None:
        self._spec, self._parts = spec, tuple(parts)

    def grade(self, requests: Sequence[GradeRequest]) -> list[Grade]:
        """Raises PluginError for a part that gives no usable grade."""
        graded = [
            _checked(part, reward.grade(requests), len(requests))
            for part, reward in zip(self._spec.parts, self._parts, strict=True)
        ]
        return [self._total(grades) for grades in zip(*graded, strict=True)]

    def check_truth(self, answer: str) -> str | None:
        for part, reward in zip(self._spec.parts, self._parts, strict=True):
            if reason := reward.check_truth(answer):
                return f"{part.called}: {reason}"
        return None

    def _total(self, grades: Sequence[Grade]) -> Grade:
        parts = list(zip(self._spec.parts, grades, strict=True))
        deciding = [grade for part, grade in parts if part in self._spec.deciding]
        formatted, weight = all(grade.formatted for grade in deciding), self._spec.format_weight
        total = sum(part.weight * grade.reward for part, grade in parts)
        numbers = {f"sum/{part.called}": grade.reward for part, grade in parts}
        for part, grade in parts:
            if known := grade.numbers.keys() & numbers.keys():
                raise PluginError(f"part {part.called} gives the number {min(known)}, which another part gives too")
            numbers |= grade.numbers
        failed = next(((part, grade) for part, grade in parts if grade.status != "ok"), None)
        return Grade(
            reward=(1.0 - weight) * total + weight * formatted,
            correct=all(grade.correct for grade in deciding),
            formatted=formatted,
            status="ok" if failed is None else failed[1].status,
            detail="" if failed is None else f"{failed[0].called}: {failed[1].detail}",
            numbers=numbers,
        )


def _added(parts: Sequence[tuple[Span, Span]], said: Mapping[int, bool]) -> Span:
    """What `parts` add up to, where those in `said` find the response right or wrong and the others either."""
    spans = [(wrong, right) if i not in said else ((wrong, right)[said[i]],) for i, (wrong, right) in enumerate(parts)]
    return sum(min(span)[0] for span in spans), sum(max(end for _, end in span) for span in spans)


def _checked(part: Part, grades: object, wanted: int) -> list[Grade]:
    """What a part gave for `wanted` requests. Raises PluginError if a sum cannot be made of it."""
    if not isinstance(grades, list | tuple) or len(grades) != wanted:
        raise PluginError(f"part {part.called}: grade() gave {grades!r:.80} for {wanted} requests")
    for grade in grades:
        if not isinstance(grade, Grade) or not math.isfinite(grade.reward):
            raise PluginError(f"part {part.called}: grade() gave {grade!r:.80}, expected a Grade with a finite reward")
    return list(grades)
