"""Conformance of interventions."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import TypeVar, cast

from ampo_registry.protocols import BuildContext
from ampo_registry.samples import OFF_POLICY, ON_POLICY, Guided, Intervened, InterventionRequest, Sample
from ampo_registry.seams import Intervention, InterventionSpec
from ampo_registry.testing.common import Rules, check_memory, check_spec_class
from ampo_registry.testing.examples import example_group, example_guidance, example_question
from ampo_registry.testing.steps import FakeServices, example_step, services_of
from ampo_registry.tokens import LogProbs
from ampo_registry.types import Guidance, Selection

Requests = Callable[[int], Sequence[InterventionRequest]]
T = TypeVar("T")


def example_interventions(seed: int = 0) -> list[InterventionRequest]:
    """Triggered groups of all shapes: nothing right and something right, no answer and several, with recorded log-probs
    and without, a rollout without a verdict, a reward that the config gives."""
    shapes = [((0.0, 0.1, 0.0, 0.1), 2), ((0.0, 1.0, 0.1, 0.9), 1), ((1.0, 1.0, 0.0), 1), ((0.0, 0.0), 0), ((0.1,), 1)]
    requests: list[InterventionRequest] = []
    for number, (rewards, count) in enumerate(shapes):
        group = example_group(rewards, question=example_question(10 * seed + number))
        if number == 1:
            unknown = replace(group.grades[0], reward=0.0, correct=False, status="timeout")
            group = replace(group, grades=(unknown, *group.grades[1:]))
        candidates = tuple(_candidate(teacher, 6 + 3 * teacher + seed) for teacher in range(count + 1 if count else 0))
        selections = tuple(Selection(candidate, -0.5) for candidate in candidates[:count])
        given = 1.0 if number == 4 else None
        requests.append(InterventionRequest(group, selections, candidates, number, Random(100 * seed + number), given))
    return requests


def _candidate(teacher: int, tokens: int) -> Guidance:
    found = example_guidance(f"teacher-{teacher}", tokens)
    return found if teacher % 2 else replace(found, logprobs=LogProbs([-0.25] * tokens))


def check_intervention(
    spec: InterventionSpec,
    requests: Requests = example_interventions,
    *,
    keeps_right: bool = True,
) -> None:
    """An intervention gives one `Guided` for each request, of samples that can be trained, the same for the same seed.

    `keeps_right` is False for one that is meant to lose right rollouts. `requests` makes requests from a seed; give
    your own if it needs more than the examples hold.
    """
    check_spec_class(spec)
    rule = Rules(spec)
    terms = _terms(rule, spec)
    logged: set[str] = set()
    empty = _intervene(rule, spec.build(BuildContext()), [], 1, logged)
    _check_result(rule, [], empty, terms, keeps_right)
    for seed in range(3):
        component, given = spec.build(BuildContext()), requests(seed)
        kept = copy.deepcopy([(request, request.question.extra) for request in given])
        _check_result(rule, given, _intervene(rule, component, given, 1 + seed, logged), terms, keeps_right)
        same = kept == [(request, request.question.extra) for request in given]
        rule(same, "the requests must be left as they are; another sample is made of one with dataclasses.replace")
    silent = sorted(set(spec.logs) - logged)
    rule(not silent, "`logs` names metrics that it logs in every run; these never came", silent or None)

    def act(component: Intervention, number: int) -> object:
        return _intervene(rule, component, requests(number), number + 1)

    check_memory(rule, spec, act)


def _terms(rule: Rules, spec: InterventionSpec) -> Sequence[str]:
    """The auxiliary terms that it labels samples with."""
    found = cast(object, spec.terms)
    rule(isinstance(found, frozenset), "terms must be a frozenset of names", found)
    own = sorted(spec.terms & {ON_POLICY, OFF_POLICY})
    rule(not own, f"terms names auxiliary terms; {ON_POLICY} and {OFF_POLICY} are always there", own or None)
    return tuple(spec.terms)


def _intervene(
    rule: Rules,
    component: Intervention,
    requests: Sequence[InterventionRequest],
    step: int,
    logged: set[str] | None = None,
) -> object:
    services = services_of(rule.spec)
    with rule.asking("intervene"):
        found = component.intervene(requests, example_step(step, metrics={"reward/accuracy": 0.5}, services=services))
    if logged is not None:
        logged.update(services.logged)
    return found


def _check_result(
    rule: Rules, requests: Sequence[InterventionRequest], result: object, terms: Sequence[str], keeps_right: bool
) -> None:
    found = _typed(rule, Intervened, result, "intervene() must give an Intervened")
    rule(
        len(found.guided) == len(requests),
        f"there must be one Guided for each of {len(requests)} requests, in order; one that nothing is done about is "
        "Guided((request.samples,))",
        len(found.guided),
    )
    for request, given in zip(requests, found.guided, strict=True):
        guided = _typed(rule, Guided, given, "intervene() must give a Guided for each request")
        samples = [sample for group in guided.groups for sample in _samples(rule, group)]
        for sample in samples:
            _check_sample(rule, sample, (ON_POLICY, OFF_POLICY, *terms), "a group")
            rule(sample.question == request.question, "a group holds samples of its own question", sample.question.uid)
        lost = [i for i in request.group.correct if request.samples[i] not in samples]
        rule(
            not keeps_right or not lost,
            "only wrong rollouts may be lost, right ones stay as they were sampled (request.with_wrong_replaced keeps "
            "to that); keeps_right=False allows otherwise",
            f"{lost} lost of {list(request.group.correct)} that are right",
        )
        for sample in guided.extra:
            _check_sample(rule, sample, terms, "Guided.extra, which auxiliary terms alone see,")
    for sample in found.extra:
        _check_sample(rule, sample, terms, "Intervened.extra, which auxiliary terms alone see,")


def _typed(rule: Rules, kind: type[T], value: object, text: str) -> T:
    rule(isinstance(value, kind), text, type(value).__name__)
    return cast(T, value)


def _samples(rule: Rules, group: object) -> Sequence[Sample]:
    text = "Guided.groups holds groups, each a sequence of samples; a single one is Guided((samples,))"
    rule(isinstance(group, Sequence), text, type(group).__name__)
    return [_typed(rule, Sample, sample, text) for sample in cast("Sequence[object]", group)]


def _check_sample(rule: Rules, sample: Sample, terms: Sequence[str], where: str) -> None:
    unknown = sorted({term for term, _ in sample.segments if term is not None} - set(terms))
    rule(
        not unknown,
        f"in {where} a segment is trained by a term of the objective or is context (None): {sorted(terms)}; an "
        "auxiliary one that a config is to declare must be named in the spec's `terms`",
        unknown or None,
    )
    longest = FakeServices().max_tokens
    prompt, response = len(sample.prompt_token_ids), len(sample.token_ids)
    rule(
        prompt > 0 and response > 0 and prompt + response <= longest,
        f"a sample has a prompt and a response, of at most context.max_tokens = {longest} tokens together",
        (prompt, response),
    )
    rule(math.isfinite(sample.reward), "a reward must be a finite number", sample.reward)
    fine = all(map(math.isfinite, sample.logprobs or ()))
    rule(fine, "log-probs must be finite; without any they are None", sample.logprobs)
