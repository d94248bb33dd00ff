"""The kit finds what it says it finds in interventions: one component for each rule that breaks it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import pytest
from ampo_registry import (
    BuildContext,
    GenerationRequest,
    Guided,
    Intervened,
    InterventionRequest,
    InterventionSpec,
    JsonValue,
    LogProbs,
    PluginError,
    Sample,
    StepContext,
)
from ampo_registry.step import CORE
from ampo_registry.testing import FakeServices, check_intervention, example_interventions, example_step

from ampo_core.config.metric_names import GUIDANCE, TRAIN


class Mixed(InterventionSpec):
    """Puts a selected answer in, and breaks one rule."""

    type: Literal["mixed"] = "mixed"
    fault: str = ""
    declared: tuple[str, ...] = ()

    @property
    def terms(self) -> Any:
        return list(self.declared) if self.fault == "names" else frozenset(self.declared)

    def intervene(self, requests: Sequence[InterventionRequest], context: StepContext) -> Intervened:
        if self.fault == "silent":
            context.log("step", 1.0)
        guided = [self._guided(request, context) for request in requests]
        match self.fault:
            case "short":
                return Intervened(tuple(guided[1:]))
            case "list":
                return guided  # type: ignore[return-value]
            case "none":
                return Intervened((None,) * len(requests))  # type: ignore[arg-type]
            case "stranger":
                return Intervened(tuple(guided), tuple(request.samples[0] for request in requests))
        return Intervened(tuple(guided))

    def _guided(self, request: InterventionRequest, context: StepContext) -> Guided:
        group = request.with_wrong_replaced([request.answer(chosen) for chosen in request.selections])
        first, *rest = group
        match self.fault:
            case "right":
                return Guided((tuple(sample for sample in group if not sample.grade.correct),))
            case "flat":
                return Guided(group)  # type: ignore[arg-type]
            case "term":
                answers = tuple(request.answer(chosen, "sft") for chosen in request.selections)
                return Guided((request.samples,), answers)
            case "global":
                return Guided((tuple(random.sample(group, len(group))),))
            case "long":
                first = replace(first, prompt_token_ids=[1] * 300)  # type: ignore[arg-type]
            case "reward":
                first = replace(first, reward=float("nan"))
            case "logprobs":
                first = replace(first, logprobs=LogProbs([float("nan")] * len(first.token_ids)))
            case "segments":
                first = replace(first, segments=(("on_policy", 1),))
            case "writes":
                request.question.extra["seen"] = True  # type: ignore[index]
            case "endless":
                asked = GenerationRequest(request.question.prompt_token_ids, request.position, max_response_tokens=65)
                context.generate([asked])
        return Guided(((first, *rest),))


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("short", "one Guided for each of 5 requests, in order"),
        ("list", "must give an Intervened; found 'list'"),
        ("none", "is a Guided for each request; found NoneType in it"),
        ("flat", r"a single one is Guided\(\(samples,\)\); found Sample"),
        ("right", r"only wrong rollouts may be lost, .* found '\[1, 3\] lost of \[1, 3\] that are right'"),
        (
            "term",
            r"Guided\.extra, which auxiliary terms alone see, .* named in the spec's `terms`; found \['sft'\]",
        ),
        ("stranger", r"Intervened\.extra, .* found \['on_policy'\]"),
        ("global", "two fresh builds that get the same calls must do the same: .* never from the global generator"),
        ("long", r"at most context\.max_tokens = 256 tokens together; found \(300, "),
        ("reward", "a reward must be a finite number"),
        ("logprobs", "log-probs must be finite"),
        ("segments", r"intervene\(\) asked for what a run refuses: a sample's segments .* do not add up to its"),
        ("writes", "the requests must be left as they are"),
        ("endless", r"position 0 asks for 1 samples of at most 65 tokens after a prompt of 7; .* has room for 64"),
        ("names", r"terms must be a frozenset of names; found \[\]"),
        ("silent", "'step' needs a name of its own, such as mine/step"),
    ],
)
def test_intervention_rules(fault: str, rule: str) -> None:
    check_intervention(Mixed())
    with pytest.raises(AssertionError, match=f"intervention mixed: .*{rule}"):
        check_intervention(Mixed(fault=fault))


def test_what_an_intervention_is_meant_to_do_is_said_to_the_check() -> None:
    check_intervention(Mixed(fault="right"), keeps_right=False)
    check_intervention(Mixed(fault="term", declared=("sft",)))
    alone = [request for request in example_interventions() if not request.group.correct]
    check_intervention(Mixed(fault="right"), lambda seed: [replace(r, rng=random.Random(seed)) for r in alone])


def test_terms_that_every_objective_has_are_not_declared() -> None:
    with pytest.raises(AssertionError, match=r"on_policy and off_policy are always there; found \['off_policy'\]"):
        check_intervention(Mixed(declared=("sft", "off_policy")))


class Promising(Mixed):
    """Names a metric that never comes."""

    type: Literal["promising"] = "promising"  # type: ignore[assignment]
    logs: ClassVar[tuple[str, ...]] = ("mine/share",)


def test_metrics_that_are_named_must_come() -> None:
    with pytest.raises(AssertionError, match=r"these never came; found \['mine/share'\]"):
        check_intervention(Promising())


class Remembering(InterventionSpec):
    """Replaces in every other step, and remembers it or not."""

    type: Literal["remembering"] = "remembering"
    fault: str = ""

    def build(self, context: BuildContext) -> Any:
        return Turns() if self.fault == "forgets" else Told(self.fault)


class Turns:
    """Has a memory that nobody knows of."""

    def __init__(self) -> None:
        self.turn = 0

    def intervene(self, requests: Sequence[InterventionRequest], context: StepContext) -> Intervened:
        self.turn += 1

        def samples(request: InterventionRequest) -> tuple[Sample, ...]:
            answers = [request.answer(chosen) for chosen in request.selections]
            return request.with_wrong_replaced(answers) if self.turn % 3 else request.samples

        return Intervened(tuple(Guided((samples(request),)) for request in requests))


class Told(Turns):
    """Gives its memory away, or half of it."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def state_dict(self) -> dict[str, JsonValue]:
        return {"turn": self.turn}

    def load_state_dict(self, state: dict[str, JsonValue]) -> None:
        turn = state["turn"]
        assert isinstance(turn, int)
        self.turn = {"half": 0, "loose": turn + 3}.get(self.fault, turn)


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("forgets", r"must give its memory to checkpoints: it needs state_dict\(\) and load_state_dict\(\)"),
        ("half", r"intervention: state_dict\(\) must be the same after load_state_dict\(\)"),
        ("loose", r"intervention: state_dict\(\) must be the same after load_state_dict\(\)"),
    ],
)
def test_a_memory_goes_through_a_checkpoint(fault: str, rule: str) -> None:
    check_intervention(Remembering())
    with pytest.raises(AssertionError, match=rule):
        check_intervention(Remembering(fault=fault))


SAMPLES = example_interventions()[0].samples


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (None, r"^Guided: `groups` are groups of samples, none at all is \(\); found NoneType$"),
        (SAMPLES, r"^Guided: each of `groups` .* a single one is Guided\(\(samples,\)\); found Sample$"),
        ([[SAMPLES[0].rollout]], r"^Guided: each of `groups` is a sequence of samples, .*; found Rollout in it$"),
        (["text"], r"^Guided: each of `groups` is a sequence of samples, .*; found str$"),
    ],
    ids=["none", "flat", "rollouts", "text"],
)
def test_what_is_no_group_of_samples_is_refused_where_it_is_made(groups: Any, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        Guided(groups)
    with pytest.raises(PluginError, match=r"^Guided: `extra` is a sequence of samples"):
        Guided((), [*(groups or []), 0])
    assert Guided([list(SAMPLES)], [SAMPLES[0]]) == Guided((SAMPLES,), SAMPLES[:1])  # type: ignore[arg-type]


def test_fake_services_refuse_what_a_run_refuses() -> None:
    context = example_step(services=FakeServices(max_response_tokens=8, max_tokens=20))
    fitting = GenerationRequest([1] * 15, 0)  # type: ignore[arg-type]
    assert all(len(rollout.token_ids) <= 5 for rollout in context.generate([fitting])[0])
    for wrong in ({"prompt_token_ids": ()}, {"prompt_token_ids": [1] * 20}, {"samples": 0}, {"max_response_tokens": 6}):
        with pytest.raises(PluginError, match=r"generate: the request at position 0 asks for"):
            context.generate([replace(fitting, **wrong)])  # type: ignore[arg-type]
    for name in ("loss", "policy/mine", "time/s"):
        with pytest.raises(PluginError, match=f"log: the metric '{name}' needs a name of its own, such as mine/"):
            context.log(name, 1.0)
    with pytest.raises(PluginError, match="log: the metric 'mine/x' is inf, expected a finite number"):
        context.log("mine/x", float("inf"))


def test_no_metric_of_the_core_may_be_taken() -> None:
    assert all(name.startswith(CORE) for name in (*TRAIN, *GUIDANCE))
