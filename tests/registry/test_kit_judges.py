"""The kit finds what it says it finds in judges and credits: one component for each rule that breaks it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import pytest
from ampo_registry import (
    EVERY_JUDGE,
    AdvantageSpec,
    BuildContext,
    ConfigError,
    CreditGroup,
    CreditSpec,
    Judge,
    JudgeRequest,
    JudgeSpec,
    LateTeacherPoolSpec,
    LogProbs,
    Question,
    RolloutGroup,
    StepContext,
    TeacherAnswer,
    TriggerContext,
    TriggerSpec,
)
from ampo_registry import testing as kit

if TYPE_CHECKING:
    import torch

CALLS = itertools.count()
ENDED: list[str] = []


class Judging(JudgeSpec):
    """Breaks one rule."""

    type: Literal["judging"] = "judging"
    fault: str = ""

    def refuses(self, temperature: float) -> str | None:
        return {"empty": "", "odd": 3}.get(self.fault)  # type: ignore[return-value]

    def check(self, context: BuildContext) -> None:
        if self.fault == "check":
            raise ConfigError("no such model")

    def build(self, context: BuildContext) -> Judge:
        return Built(self.fault)


class Built:
    """The judge of Judging: -0.1 for the first token of a request, -0.2 for the second, and so on."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def logprobs(self, requests: Sequence[JudgeRequest], temperature: float) -> list[LogProbs]:
        found = [LogProbs(-0.1 * (i + 1) for i in range(len(request.token_ids))) for request in requests]
        match self.fault:
            case "none":
                return None  # type: ignore[return-value]
            case "short":
                return found[:-1]
            case "tuples":
                return [tuple(one) for one in found]  # type: ignore[misc]
            case "prompt too":
                return [
                    one + LogProbs([-0.5] * len(r.prompt_token_ids)) for one, r in zip(found, requests, strict=True)
                ]
            case "nan":
                return [LogProbs([float("nan")] * len(one)) for one in found]
            case "positive":
                return [LogProbs([0.5] * len(one)) for one in found]
            case "takes them":
                requests.clear()  # type: ignore[attr-defined]
            case "first":
                return [LogProbs(value - (i == 0) for value in one) for i, one in enumerate(found)]
            case "batch":
                return [LogProbs(value - len(requests) for value in one) for one in found]
            case "restless":
                return [LogProbs(value - next(CALLS) for value in one) for one in found]
        return found

    def sleep(self) -> None:
        ENDED.append("asleep")

    def close(self) -> None:
        ENDED.append("closed")


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("empty", r"refuses\(\) must give a reason or None"),
        ("odd", r"refuses\(\) must give a reason or None; found 3"),
        ("none", "there must be one answer for each request"),
        ("short", "there must be one answer for each request"),
        ("tuples", "an answer must be LogProbs"),
        ("prompt too", "there must be one log-prob for each token; found 2"),
        ("nan", "log-probs must be finite and at most 0"),
        ("positive", "log-probs must be finite and at most 0"),
        ("takes them", "requests must be left as they are"),
        ("first", "the order of the requests must not change a log-prob"),
        ("batch", "the other requests must not change a log-prob"),
        ("restless", "must not change a log-prob"),
    ],
)
def test_judge_rules(fault: str, rule: str) -> None:
    ENDED.clear()
    with pytest.raises(AssertionError, match=f"judge judging: .*({rule})"):
        kit.check_judge(Judging(fault=fault), BuildContext())
    assert ([] if fault in ("empty", "odd") else ["asleep", "closed"]) == ENDED


def test_a_judge_without_fault_passes_and_is_closed() -> None:
    ENDED.clear()
    kit.check_judge(Judging(), spec_only=True)
    assert ENDED == []
    with pytest.raises(AssertionError, match="log-probs must be finite"):
        kit.check_judge(Judging(fault="nan"))
    ENDED.clear()
    kit.check_judge(Judging(), BuildContext())
    assert ENDED == ["asleep", "closed"]
    with pytest.raises(ConfigError, match="no such model"):
        kit.check_judge(Judging(fault="check"), BuildContext())


class Crediting(CreditSpec):
    """Breaks one rule."""

    type: Literal["crediting"] = "crediting"
    fault: str = ""

    @property
    def judges(self) -> frozenset[str]:
        return frozenset({"start"})

    def credit(
        self, groups: Sequence[CreditGroup], context: StepContext
    ) -> Sequence[Sequence[float | Sequence[float] | torch.Tensor]]:
        import torch

        requests = [JudgeRequest(s.prompt_token_ids, s.token_ids) for group in groups for s in group.samples]
        asked = {"unnamed judge": "far", "policy": "policy"}.get(self.fault, "start")
        known = iter(context.judge(asked).logprobs(requests))
        found: list[list[Any]] = [[list(next(known)) for _ in group.samples] for group in groups]
        match self.fault:
            case "none":
                return None  # type: ignore[return-value]
            case "short":
                return found[:-1]
            case "sample":
                return [row[:-1] for row in found]
            case "one too many":
                return [[[*value, 0.0] for value in row] for row in found]
            case "column":
                return [[torch.tensor(value)[:, None] for value in row] for row in found]
            case "nan":
                return [[float("nan") for _ in row] for row in found]
            case "text":
                return [["much" for _ in row] for row in found]
            case "restless":
                return [[float(next(CALLS)) for _ in row] for row in found]
            case "tensor for a group":
                return [torch.zeros(len(row)) for row in found]
            case "bool":
                return [[True for _ in row] for row in found]
            case "bools":
                return [[torch.ones(len(value), dtype=torch.bool) for value in row] for row in found]
            case "bfloat16":
                return [[torch.tensor(value, dtype=torch.bfloat16) for value in row] for row in found]
            case "never nothing":
                return found or [[]]
            case "unverified" | "unverified, nothing":
                beside = None if "nothing" in self.fault else float("nan")
                return [[v if s.verified else beside for v, s in zip(row, g.samples, strict=True)]
                        for row, g in zip(found, groups, strict=True)]  # fmt: skip
        return found


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("none", "a list of advantages for each group"),
        ("short", "there must be a list of advantages for each group"),
        ("sample", "there must be an advantage for each sample"),
        ("one too many", r"a number, or one for each of 4 tokens; found \(5,\)"),
        ("column", r"a number, or one for each of 4 tokens; found \(4, 1\)"),
        ("nan", "advantages must be finite"),
        ("text", "a number, or one for each of 4 tokens"),
        ("restless", "two fresh builds must give the same for the same groups"),
        ("tensor for a group", "a group's advantages must be a list; found tensor"),
        ("bool", "a number, or one for each of 4 tokens; found True"),
        ("bools", "a number, or one for each of 4 tokens; found tensor"),
        ("unnamed judge", r"credit\(\) asked for .*'far', which the spec's property `judges` does not name.*'start'"),
        ("never nothing", "no groups must give no advantages|a list of advantages for each group"),
    ],
)
def test_credit_rules(fault: str, rule: str) -> None:
    with pytest.raises(AssertionError, match=f"advantage crediting: .*({rule})"):
        kit.check_credit(Crediting(fault=fault))


def test_a_credit_without_fault_passes_by_either_name() -> None:
    kit.check_credit(Crediting())
    kit.check_advantage(Crediting())
    for fine in ("unverified", "unverified, nothing", "bfloat16", "policy"):
        kit.check_credit(Crediting(fault=fine))
    kit.check_credit(Crediting(), kit.example_credit_groups()[:1])


class Short(AdvantageSpec):
    """The short form, centred."""

    type: Literal["short"] = "short"

    def advantages(self, rewards: torch.Tensor, correct: torch.Tensor, off_policy: torch.Tensor) -> torch.Tensor:
        return rewards - rewards.mean()


def test_the_short_form_is_a_credit_too() -> None:
    kit.check_credit(Short())


class Curious(TriggerSpec):
    """Asks a judge."""

    type: Literal["curious"] = "curious"
    names: frozenset[str] = frozenset({"near"})

    @property
    def judges(self) -> frozenset[str]:
        return self.names

    def fires(self, group: RolloutGroup, context: TriggerContext) -> bool:
        return bool(context.judge("near").logprobs([]))


def test_whatever_asks_a_judge_names_it() -> None:
    kit.check_trigger(Curious())
    kit.check_trigger(Curious(names=frozenset({EVERY_JUDGE})))
    with pytest.raises(
        AssertionError, match=r"trigger curious: fires\(\) asked for .* judge 'near', which .* \['far'\]"
    ):
        kit.check_trigger(Curious(names=frozenset({"far"})))
    kit.FakeServices().judge("any")


class Unnamed(LateTeacherPoolSpec):
    """Answers under another name."""

    type: Literal["unnamed"] = "unnamed"
    teacher: str = "live"

    @property
    def names(self) -> tuple[str, ...]:
        return ("live",)

    def answers(self, question: Question, group: RolloutGroup) -> Sequence[TeacherAnswer]:  # type: ignore[override]
        return [TeacherAnswer(self.teacher, "42")]


def test_a_late_pool_names_its_teachers() -> None:
    kit.check_teacher_pool(Unnamed())
    with pytest.raises(AssertionError, match="names must hold every teacher that answers; found 'other'"):
        kit.check_teacher_pool(Unnamed(teacher="other"))
