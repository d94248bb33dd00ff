"""Intervention `hint`: the student answers the question anew, with the beginning of a teacher's answer beside it.

A part of a solution in the prompt, trained as it was asked, is QuestA (arXiv 2507.13266). Training such a response
under the question's own prompt is the aim of Guide (arXiv 2506.13923), here without its importance weight: the sampler
has not recorded the response under that prompt, so π_old is the learner's own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from ampo_registry import (
    GenerationRequest,
    Grade,
    Guided,
    Intervened,
    InterventionRequest,
    InterventionSpec,
    Rollout,
    Sample,
    Selection,
    StepContext,
    TokenIds,
)
from ampo_registry.text import nearest
from pydantic import Field, PositiveInt, field_validator

PLACES = ("question", "hint")
_SENTENCE = re.compile(r"\S.*?(?:[.!?](?=\s|[A-Z])|[;\n。]|\Z)", re.DOTALL)


class Hint(InterventionSpec):
    """A response to the question with a hint, one for each selected answer, takes the place of a wrong rollout."""

    type: Literal["hint"] = "hint"
    template: str = Field(
        default="{question}\n\nThe solution begins like this:\n{hint}",
        description="the last user message as the student gets it: {question} stands for it, {hint} for the sentences",
    )
    sentences: PositiveInt = Field(default=2, description="how many of the answer's first sentences the hint holds")
    train: Literal["hinted", "original"] = Field(
        default="hinted", description="the prompt that the response is trained under: with the hint, or the question's"
    )
    logs: ClassVar[tuple[str, ...]] = ("hint/no_room", "hint/no_sentence")

    @field_validator("template")
    @classmethod
    def _has_both_places(cls, template: str) -> str:
        found = re.findall(r"\{(\w+)\}", template)
        for place in PLACES:
            if place not in found:
                near = next((name for name in found if nearest(name, PLACES) == place), "")
                raise ValueError(f"it needs a {{{place}}}" + (f"; did you mean that by {{{near}}}?" if near else ""))
        return template

    def intervene(self, requests: Sequence[InterventionRequest], context: StepContext) -> Intervened:
        """A prompt that leaves no room for a response, or an answer that begins with its tagged answer, leaves the
        wrong rollout in its place: `hint/no_room` and `hint/no_sentence` are their shares."""
        asked = [
            _Hinted(number, request, selection, prompt)
            for number, request in enumerate(requests)
            for selection in request.selections
            if (prompt := self._prompt(request, selection, context))
        ]
        rollouts = context.generate([GenerationRequest(one.prompt, one.request.position) for one in asked])
        written = [rollout for (rollout,) in rollouts]
        grades = context.grade([(one.request.question, text) for one, text in zip(asked, written, strict=True)])
        fresh: list[list[Sample]] = [[] for _ in requests]
        for one, rollout, grade in zip(asked, written, grades, strict=True):
            fresh[one.number].append(self._sample(one, rollout, grade))
        return Intervened(
            tuple(Guided((r.with_wrong_replaced(samples),)) for r, samples in zip(requests, fresh, strict=True))
        )

    def _prompt(self, request: InterventionRequest, selection: Selection, context: StepContext) -> TokenIds | None:
        """The question's prompt with the hint; None where there is no hint or no room for a response."""
        hint = first_sentences(selection.guidance.text, self.sentences)
        context.log("hint/no_sentence", float(not hint))
        if not hint:
            return None
        messages = list(request.question.messages)
        last = max(i for i, message in enumerate(messages) if message.role == "user")
        parts = {"{question}": messages[last].content, "{hint}": hint}
        filled = re.sub(r"\{question\}|\{hint\}", lambda found: parts[found[0]], self.template)
        messages[last] = replace(messages[last], content=filled)
        prompt = context.prompt(messages)
        fits = len(prompt) < context.max_tokens
        context.log("hint/no_room", float(not fits))
        return prompt if fits else None

    def _sample(self, one: _Hinted, written: Rollout, grade: Grade) -> Sample:
        sampled = replace(Sample.sampled(one.request.question, written, grade), selection=one.selection)
        if self.train == "original":
            return replace(sampled, logprobs=None)
        return replace(sampled, prompt_token_ids=one.prompt)


@dataclass(frozen=True, slots=True)
class _Hinted:
    """What is asked again: for which selection of the `number`-th request, and under which prompt."""

    number: int
    request: InterventionRequest
    selection: Selection
    prompt: TokenIds


def first_sentences(text: str, count: int) -> str:
    """The first `count` sentences of a teacher's answer, at most up to its tagged answer; without thinking tags."""
    reasoning = re.sub(r"</?think>", "", text.partition("<answer>")[0])
    found = list(_SENTENCE.finditer(reasoning))[:count]
    return reasoning[found[0].start() : found[-1].end()].strip() if found else ""
