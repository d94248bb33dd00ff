"""Conformance of the free form of an advantage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from ampo_registry.credit import CreditGroup, CreditSpec, credit_of, numbers_of
from ampo_registry.protocols import BuildContext
from ampo_registry.samples import OFF_POLICY, ON_POLICY, Sample
from ampo_registry.testing.common import Rules, check_spec_class, check_state
from ampo_registry.testing.examples import example_grade, example_guidance, example_question, example_rollout
from ampo_registry.testing.steps import example_step, services_of
from ampo_registry.types import Selection


def example_credit_groups() -> list[CreditGroup]:
    """Groups of students' responses, of a teacher's answer beside them, of one that the student went on from, and with
    a response on which there is no verdict."""
    groups: list[CreditGroup] = []
    for number in range(3):
        question = example_question(number)
        chosen = Selection(example_guidance("teacher-0"), 0.5)
        samples = [
            Sample.sampled(question, example_rollout(tokens), example_grade(right))
            for tokens, right in ((4, True), (6, False), (9, number == 1))
        ]
        if number == 1:
            samples.append(Sample.answer(question, chosen))
            begun = replace(samples[2], segments=((OFF_POLICY, 3), (None, 1), (ON_POLICY, 5)), selection=chosen)
            samples[2] = begun
        if number == 2:
            samples[0] = replace(samples[0], grade=replace(samples[0].grade, status="timeout"))
        groups.append(CreditGroup(question, tuple(samples), (chosen,) if number else ()))
    return groups


def check_credit(spec: CreditSpec, groups: Sequence[CreditGroup] | None = None) -> None:
    """A credit gives each sample a finite number or one for each of its tokens; two fresh builds that are told the same
    give the same, as two ranks must.

    `groups` are those that it is asked about, the examples by default.
    """
    check_spec_class(spec)
    rule = Rules(spec)
    given = list(groups) if groups is not None else example_credit_groups()
    first, second = _credits(spec, rule, given), _credits(spec, rule, given)
    rule(first == second, "two fresh builds must give the same for the same groups: no rank may differ from another")
    rule(_credits(spec, rule, []) == [], "no groups must give no advantages")
    check_state(spec, spec.build(BuildContext()))


def _credits(spec: CreditSpec, rule: Rules, groups: Sequence[CreditGroup]) -> list[list[list[float]]]:
    """What it says of each sample that has a verdict."""
    with rule.asking("credit"):
        found = credit_of(spec.build(BuildContext()), groups, example_step(services=services_of(spec)))
    fits = isinstance(cast(object, found), list | tuple) and len(found) == len(groups)
    rule(fits, "there must be a list of advantages for each group", found)
    values: list[list[list[float]]] = []
    for group, advantages in zip(groups, found, strict=True):
        rule(isinstance(cast(object, advantages), list | tuple), "a group's advantages must be a list", advantages)
        rule(len(advantages) == len(group.samples), "there must be an advantage for each sample", len(advantages))
        pairs = zip(advantages, group.samples, strict=True)
        # what is said of a sample without a verdict is not used
        values.append([_checked(rule, value, sample) for value, sample in pairs if sample.verified])
    return values


def _checked(rule: Rules, value: object, sample: Sample) -> list[float]:
    tokens = len(sample.token_ids)
    text = f"an advantage is a number, or one for each of {tokens} tokens"
    try:
        made = numbers_of(value)
    except (TypeError, ValueError):
        rule(False, text, value)
        raise
    rule(made.shape in ((), (tokens,)), text, tuple(made.shape))
    rule(bool(made.isfinite().all()), "advantages must be finite", made)
    return [float(item) for item in made.reshape(-1)]
