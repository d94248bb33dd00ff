"""Intervention `prefix`: the student goes on from the beginning of a teacher's answer, whose share may fall over the
run (UFT, arXiv 2505.16984; Prefix-RFT, arXiv 2507.01679)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from ampo_registry import (
    OFF_POLICY,
    ON_POLICY,
    BuildContext,
    GenerationRequest,
    Grade,
    Guided,
    Intervened,
    Intervention,
    InterventionRequest,
    InterventionSpec,
    LogProbs,
    Rollout,
    RunError,
    Sample,
    Schedule,
    ScheduledField,
    ScheduleSpec,
    Selection,
    StepContext,
    TokenIds,
)
from pydantic import Field


class Prefix(InterventionSpec):
    """The first share of each selected answer, continued by the student, takes the place of one wrong rollout."""

    type: Literal["prefix"] = "prefix"
    share: Annotated[float | ScheduleSpec, ScheduledField(0.0, 1.0)] = Field(
        default=0.5, description="how much of an answer the student is given: from 0, nothing, to 1, all of it"
    )
    train: Literal["off_policy", "context"] = Field(
        default="off_policy", description="what trains the teacher's tokens: the off-policy term, or nothing (context)"
    )
    logs: ClassVar[tuple[str, ...]] = ("prefix/share",)

    def build(self, context: BuildContext) -> Intervention:
        return _Prefix(OFF_POLICY if self.train == "off_policy" else None, context.build(self.share, "share"))


@dataclass(frozen=True, slots=True)
class _Start:
    """A selected answer, and the tokens of it that the student goes on from."""

    request: InterventionRequest
    selection: Selection
    tokens: TokenIds

    @property
    def whole(self) -> bool:
        """True if it leaves nothing to write."""
        return len(self.tokens) == len(self.selection.guidance.token_ids)

    @property
    def logprobs(self) -> LogProbs:
        """What the data recorded for these tokens; 0, that is π_φ = 1, where it recorded none that fit."""
        guidance = self.selection.guidance
        recorded, count = guidance.logprobs, len(guidance.token_ids)
        if recorded is not None and len(recorded) in (count - 1, count):
            return recorded[: len(self.tokens)]
        return LogProbs([0.0] * len(self.tokens))


class _Prefix:
    def __init__(self, term: str | None, share: Schedule) -> None:
        self._term, self._share = term, share

    def intervene(self, requests: Sequence[InterventionRequest], context: StepContext) -> Intervened:
        share = context.value(self._share)
        if not 0.0 <= share <= 1.0:
            raise RunError(f"step {context.step}: the schedule of prefix's share came to {share}; it must be 0 to 1")
        context.log("prefix/share", share)
        starts = [
            _Start(request, selection, _beginning(selection, share))
            for request in requests
            for selection in request.selections
        ]
        continued = iter(self._continued([start for start in starts if not start.whole], context))
        samples = iter([self._whole(start) if start.whole else next(continued) for start in starts])
        return Intervened(
            tuple(Guided((r.with_wrong_replaced([next(samples) for _ in r.selections]),)) for r in requests)
        )

    def _continued(self, starts: Sequence[_Start], context: StepContext) -> list[Sample]:
        """A sample for each of `starts`: its tokens, and what the student wrote after them."""
        limit = context.options.max_response_tokens
        found = context.generate(
            [
                GenerationRequest(
                    start.request.question.prompt_token_ids + start.tokens,
                    start.request.position,
                    max_response_tokens=limit - len(start.tokens),
                )
                for start in starts
            ]
        )
        written = [rollout for (rollout,) in found]
        wholes = [_joined(start, rollout, context) for start, rollout in zip(starts, written, strict=True)]
        questions = [start.request.question for start in starts]
        grades = context.grade(list(zip(questions, wholes, strict=True)))
        if grades:
            context.log("prefix/correct", sum(grade.correct for grade in grades) / len(grades))
        return [self._sample(*parts) for parts in zip(starts, written, wholes, grades, strict=True)]

    def _whole(self, start: _Start) -> Sample:
        return replace(start.request.answer(start.selection), segments=((self._term, len(start.tokens)),))

    def _sample(self, start: _Start, written: Rollout, whole: Rollout, grade: Grade) -> Sample:
        question = start.request.question
        if not start.tokens:
            return Sample.sampled(question, written, grade)
        return Sample(
            question=question,
            prompt_token_ids=question.prompt_token_ids,
            token_ids=whole.token_ids,
            segments=((self._term, len(start.tokens)), (ON_POLICY, len(written.token_ids))),
            text=whole.text,
            reward=grade.reward,
            grade=grade,
            logprobs=whole.logprobs,
            rollout=written,
            selection=start.selection,
        )


def _beginning(selection: Selection, share: float) -> TokenIds:
    """The first `share` of the answer's tokens, its end token not counted, rounded to whole tokens; with all of them
    the end token too."""
    answer = selection.guidance.token_ids
    count = round(share * (len(answer) - 1))
    return answer if share > 0.0 and count == len(answer) - 1 else answer[:count]


def _joined(start: _Start, written: Rollout, context: StepContext) -> Rollout:
    """Beginning and continuation as one response, which ended as the continuation did."""
    tokens = start.tokens + written.token_ids
    logprobs = start.logprobs + written.logprobs
    return Rollout(tokens, logprobs, context.text(tokens), written.finish_reason, written.policy_version)
