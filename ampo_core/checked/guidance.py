"""Triggers, teacher pools, selectors and interventions: what they are asked, and what they may answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from ampo_registry.samples import OFF_POLICY, ON_POLICY, Guided, Intervened, InterventionRequest, Sample
from ampo_registry.selectors import ScoringSelectorSpec
from ampo_registry.step import StepContext
from ampo_registry.text import nearest
from ampo_registry.types import Question, RolloutGroup, Selection, SelectionRequest, TeacherAnswer

from ampo_core.checked.call import Asked, about, shown
from ampo_core.checked.component import Checked, asked_of


class CheckedTrigger(Checked):
    """True or False for a group."""

    def fires(self, group: RolloutGroup, context: StepContext) -> bool:
        with about(group.question.uid):
            found: object = self.asked.ask("fires", group, context)
            if not isinstance(found, bool):
                raise self.asked.wrong("fires", shown(found), "True or False")
            return found


class CheckedPool(Checked):
    """Teacher answers for a question."""

    def answers(self, question: Question, *more: Any) -> list[TeacherAnswer]:
        with about(question.uid):
            given: object = self.asked.ask("answers", question, *more)
            if not isinstance(given, Sequence) or isinstance(given, str):
                raise self.asked.wrong("answers", shown(given), "a list of TeacherAnswer, empty where there is none")
            answers = self.asked.within("answers", lambda: list(given))
            wrong = next((answer for answer in answers if not _is_answer(answer)), None)
            if wrong is not None or None in answers:
                expected = "TeacherAnswers with the names of their teachers, their texts, and finite scores or None"
                raise self.asked.wrong("answers", shown(wrong), expected)
            return answers


def _is_answer(answer: object) -> bool:
    return (
        isinstance(answer, TeacherAnswer)
        and isinstance(answer.teacher, str)
        and bool(answer.teacher)
        and isinstance(answer.text, str)
        and (answer.quality_score is None or _is_finite(answer.quality_score))
    )


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class CheckedSelector(Checked):
    """At most k distinct candidates of each request."""

    def select(self, requests: Sequence[SelectionRequest], context: StepContext) -> list[list[Selection]]:
        kept, component = tuple(requests), self.asked.component
        scores = isinstance(component, ScoringSelectorSpec) and type(component).select is ScoringSelectorSpec.select
        method = "score" if scores else "select"
        found: object = self.asked.within(method, lambda: component.select(kept, context))
        if not isinstance(found, list | tuple):
            raise self.asked.wrong(method, shown(found), "a list with one list of Selections for each request")
        if len(found) != len(kept):
            many = f"{len(found)} lists of Selections for {len(kept)} requests"
            raise self.asked.wrong(method, many, "one for each")
        return [_selected(self.asked, method, *pair) for pair in zip(kept, found, strict=True)]


def _selected(asked: Asked, method: str, request: SelectionRequest, found: object) -> list[Selection]:
    with about(request.question.uid):
        if not isinstance(found, list | tuple) or not all(isinstance(one, Selection) for one in found):
            raise asked.wrong(method, shown(found), "a list of Selections")
        selected: list[Selection] = list(found)
        chosen = [next((i for i, c in enumerate(request.candidates) if c is s.guidance), -1) for s in selected]
        if len(chosen) > request.k or -1 in chosen or len(set(chosen)) < len(chosen):
            text = f"candidates {chosen} (-1: none of the request)"
            raise asked.wrong(method, text, f"at most {request.k} distinct candidates of its request")
        wrong = next((s.score for s in selected if s.score is not None and not _is_number(s.score)), None)
        if wrong is not None:
            raise asked.wrong(method, f"the score {shown(wrong)}", "a number, or None")
        return selected


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not math.isnan(value)


def intervened(
    intervention: object,
    requests: Sequence[InterventionRequest],
    context: StepContext,
    auxiliary: Iterable[str],
) -> Intervened:
    """What `intervention` gives for `requests`, if all of it can be trained: one Guided for each, samples that fit and
    that terms of the objective train, `auxiliary` ones among them. Raises PluginFault for anything else."""
    asked, kept, terms = asked_of(intervention, "intervention"), tuple(requests), tuple(auxiliary)
    found: object = asked.ask("intervene", kept, context)
    if not isinstance(found, Intervened):
        raise asked.wrong("intervene", shown(found), "an Intervened")
    if len(found.guided) != len(kept):
        raise asked.wrong("intervene", f"{len(found.guided)} Guided for {len(kept)} requests", "one for each")
    for request, guided in zip(kept, found.guided, strict=True):
        with about(request.question.uid):
            _check_guided(asked, request, guided, terms, context.max_tokens)
    for sample in found.extra:
        _check_sample(asked, sample, terms, context.max_tokens)
    return found


def _check_guided(asked: Asked, request: InterventionRequest, guided: Guided, terms: Sequence[str], most: int) -> None:
    for group in guided.groups:
        for sample in group:
            _check_sample(asked, sample, (ON_POLICY, OFF_POLICY, *terms), most)
            if sample.question.uid != request.question.uid:
                text = f"a sample of question {sample.question.uid[:12]} in a group"
                raise asked.wrong("intervene", text, "samples of the question of its request")
    for sample in guided.extra:
        _check_sample(asked, sample, terms, most)


def _check_sample(asked: Asked, sample: Sample, terms: Sequence[str], most: int) -> None:
    unknown = next((term for term, _ in sample.segments if term is not None and term not in terms), None)
    if unknown is not None:
        near = nearest(unknown, terms)
        hint = f"did you mean {near!r}? " if near else ""
        allowed = ", ".join(terms) or "none: objective.auxiliary declares no term"
        raise asked.wrong("intervene", f"a sample for the term {unknown!r}", f"{hint}a term of: {allowed}")
    prompt, response = len(sample.prompt_token_ids), len(sample.token_ids)
    if not prompt or not response or prompt + response > most:
        text = f"a sample of {prompt} prompt and {response} response tokens"
        raise asked.wrong("intervene", text, f"one of each, and at most {most} together")
    if not _is_finite(sample.reward):
        raise asked.wrong("intervene", f"a sample with the reward {shown(sample.reward)}", "a finite number")
