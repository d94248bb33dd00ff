"""What an intervention gave, checked before it is used: terms that exist, samples that fit, finite rewards."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from ampo_registry.errors import PluginError
from ampo_registry.samples import OFF_POLICY, ON_POLICY, Guided, Intervened, Sample
from ampo_registry.text import nearest
from ampo_registry.types import Question

from ampo_core.loop.groups import AugmentedGroup, GuidedQuestion


def intervened(found: object, requests: int, plugin: str) -> Intervened:
    """`found`, if it is what `plugin` owes for so many requests. Raises PluginError for anything else."""
    if not isinstance(found, Intervened):
        raise PluginError(f"{plugin}.intervene must give an Intervened; found {type(found).__name__}")
    if len(found.guided) != requests:
        raise PluginError(f"{plugin}.intervene answered {len(found.guided)} of {requests} requests")
    return found


def guided_question(
    question: Question, guided: Guided, auxiliary: Iterable[str], max_tokens: int, plugin: str
) -> GuidedQuestion:
    """`question`, which the trigger fired for, as `plugin` guided it. Raises PluginError for what cannot be trained."""
    if not isinstance(guided, Guided):
        raise PluginError(f"{plugin}.intervene must give a Guided for each request; found {type(guided).__name__}")
    names = tuple(auxiliary)
    given: tuple[Any, ...] = guided.groups
    for group in given:
        if isinstance(group, Sample):
            raise PluginError(f"{plugin}.intervene: Guided.groups holds groups; a single one is Guided((samples,))")
        for sample in group:
            _check(sample, (ON_POLICY, OFF_POLICY, *names), max_tokens, plugin)
            if sample.question.uid != question.uid:
                raise PluginError(f"{plugin}.intervene put a sample of another question into a group")
    groups = tuple(AugmentedGroup(tuple(group)) for group in given if group)
    return GuidedQuestion(question, groups, step_extra(guided.extra, names, max_tokens, plugin), triggered=True)


def step_extra(samples: Sequence[Sample], auxiliary: Iterable[str], max_tokens: int, plugin: str) -> tuple[Sample, ...]:
    """`samples`, if auxiliary terms alone train them. Raises PluginError for others."""
    names = tuple(auxiliary)
    for sample in samples:
        _check(sample, names, max_tokens, plugin)
    return tuple(samples)


def _check(sample: Sample, terms: Sequence[str], max_tokens: int, plugin: str) -> None:
    if not isinstance(sample, Sample):
        raise PluginError(f"{plugin}.intervene must give samples; found {type(sample).__name__}")
    unknown = next((term for term, _ in sample.segments if term is not None and term not in terms), None)
    if unknown is not None:
        near = nearest(unknown, terms)
        allowed = ", ".join(terms) or "none: objective.auxiliary declares no term"
        hint = f"did you mean {near!r}? " if near else ""
        raise PluginError(f"{plugin}.intervene: no term {unknown!r} may train this sample; {hint}Allowed: {allowed}")
    length = len(sample.prompt_token_ids) + len(sample.token_ids)
    if not sample.prompt_token_ids or not sample.token_ids or length > max_tokens:
        raise PluginError(
            f"{plugin}.intervene: a sample has {len(sample.prompt_token_ids)} prompt and {len(sample.token_ids)} "
            f"response tokens; it needs one of each, and at most {max_tokens} together"
        )
    if not math.isfinite(sample.reward):
        raise PluginError(f"{plugin}.intervene: a sample's reward is {sample.reward}, expected a finite number")
