"""The credit `distill` against its equation, in float64, and what it refuses before a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from ampo_plugins.advantages.distill import Distill
from ampo_registry import (
    EVERY_JUDGE,
    OFF_POLICY,
    ON_POLICY,
    BuildContext,
    CreditGroup,
    CreditSpec,
    DataError,
    JudgeRequest,
    LogProbs,
    PluginError,
    Sample,
    Selection,
    StepContext,
)
from ampo_registry.testing import (
    FakeJudge,
    FakeServices,
    check_credit,
    example_grade,
    example_guidance,
    example_question,
    example_rollout,
    example_step,
)

OLD = (-0.25, -1.0, -3.5, -0.0625)
"""What the student thinks of its four tokens: exact in float32."""
JUDGED = (-0.5, -0.125, -2.25, -4.0)
RATIOS = (-0.25, 0.875, 1.25, -3.9375)


class Told(FakeJudge):
    """Says `JUDGED` of every response."""

    def _logprobs(self, request: JudgeRequest) -> LogProbs:
        return LogProbs(JUDGED[: len(request.token_ids)])


def response(*, right: bool = True, **changes: Any) -> Sample:
    rollout = replace(example_rollout(4), logprobs=LogProbs(OLD))
    return replace(Sample.sampled(example_question(), rollout, example_grade(right)), **changes)


def group(*samples: Sample, teacher: str | None = None, extra: Mapping[str, object] | None = None) -> CreditGroup:
    chosen = () if teacher is None else (Selection(example_guidance(teacher), 0.5),)
    return CreditGroup(example_question(extra=extra), samples, chosen)


def credited(
    groups: Sequence[CreditGroup], judges: Sequence[FakeJudge], *, step: int = 1, **options: Any
) -> tuple[list[list[list[float]]], FakeServices]:
    """The advantages of each sample of each group, one or one a token, and the services with what they were asked."""
    services = FakeServices()
    services.judges = {judge.name: judge for judge in judges}
    component = BuildContext().build(Distill.model_validate(options))
    assert not hasattr(component, "advantages")
    found = component.credit(groups, example_step(step, 11, services=services))  # type: ignore[union-attr]
    values = [[torch.as_tensor(value, dtype=torch.float64).reshape(-1).tolist() for value in one] for one in found]
    return values, services


def test_it_keeps_the_contract_of_a_credit() -> None:
    check_credit(Distill(judge="one"))
    check_credit(Distill(judge="one", weight=0.5, reward_weight=1.0))
    check_credit(Distill())


def test_equal_log_probs_give_exactly_0() -> None:
    """Whatever the weight: also for numbers that float32 does not hold."""
    same = replace(response(), logprobs=None)  # -0.5 of each token, as the judge says
    for value in (-0.5, -0.1, -1e-9, -30.0):
        sample = same if value == -0.5 else replace(same, logprobs=LogProbs([value] * 4))
        [[found]], services = credited([group(sample)], [FakeJudge("one", value)], judge="one", weight=3.7)
        assert found == [0.0] * 4
        assert services.logged == {"distill/kl/one": [0.0]}


def test_a_token_gets_its_log_ratio_and_its_share_of_the_reward() -> None:
    """Rewards 1 and 0.1 are 0.45 from their mean."""
    samples, options = (response(), response(right=False)), {"weight": 0.3, "reward_weight": 0.7, "reward": "mean_only"}
    found, services = credited([group(*samples)], [Told("one")], judge="one", **options)
    for values, reward in zip(found[0], (0.45, -0.45), strict=True):
        assert values == pytest.approx([0.3 * ratio + 0.7 * reward for ratio in RATIOS], rel=1e-14)
    assert services.logged["distill/kl/one"] == pytest.approx([-sum(RATIOS) / 4], rel=1e-15)


def test_the_weights_may_be_schedules() -> None:
    rise, fall = {"type": "linear", "start": 0.0, "end": 1.0}, {"type": "linear", "start": 2.0, "end": 0.0}
    samples = response(), response(right=False)
    options = {"judge": "one", "weight": rise, "reward_weight": fall, "reward": {"type": "mean_only"}}
    for step, weight, share in ((1, 0.0, 2.0), (6, 0.5, 1.0), (11, 1.0, 0.0)):
        [[first, _]], _ = credited([group(*samples)], [Told("one")], step=step, **options)
        assert first == pytest.approx([weight * ratio + share * 0.45 for ratio in RATIOS], rel=1e-12)


def test_only_the_students_own_tokens_are_distilled() -> None:
    """A teacher's tokens and context get the reward's part alone, and a whole answer is not even asked about."""
    begun = response(segments=((OFF_POLICY, 1), (None, 1), (ON_POLICY, 2)))
    answer = Sample.answer(example_question(), Selection(example_guidance(), 0.5), reward=0.1)
    asked = Told("one")
    options = {"judge": "one", "reward_weight": 2.0, "reward": {"type": "mean_only"}}
    [found], services = credited([group(begun, answer)], [asked], **options)
    assert found[0] == pytest.approx([0.9, 0.9, RATIOS[2] + 0.9, RATIOS[3] + 0.9], rel=1e-12)
    assert found[1] == pytest.approx([-0.9], rel=1e-12)
    assert [[request.token_ids for request in call] for call in asked.asked] == [[begun.token_ids]]
    assert services.logged["distill/kl/one"] == pytest.approx([-(RATIOS[2] + RATIOS[3]) / 2], rel=1e-12)


def test_a_sample_without_a_verdict_is_not_asked_about_and_changes_nothing() -> None:
    late = response(grade=replace(example_grade(), status="timeout"))
    asked = Told("one")
    options = {"judge": "one", "reward_weight": 1.0}
    [[_, first, second]], _ = credited([group(late, response(), response(right=False))], [asked], **options)
    [alone], _ = credited([group(response(), response(right=False))], [Told("one")], **options)
    assert [first, second] == alone
    assert [len(call) for call in asked.asked] == [2]


def test_the_judge_comes_by_name_by_a_field_of_the_row_or_from_the_selection() -> None:
    groups = [
        group(response(), teacher="b", extra={"extra_info": {"expert": "a"}}),
        group(response(), teacher="a", extra={"extra_info": {"expert": "b"}}),
        group(response(), extra={"extra_info": {"expert": "a"}}),
    ]
    said = {"a": -0.5, "b": -2.0}
    for options, expected in (
        ({"judge": "b"}, ["b", "b", "b"]),
        ({"field": "extra_info.expert"}, ["a", "b", "a"]),
        ({"judge": "selected"}, ["b", "a", None]),
        ({}, ["b", "a", None]),
    ):
        found, services = credited(groups, [FakeJudge(name, value) for name, value in said.items()], **options)
        for [values], name in zip(found, expected, strict=True):
            ratios = [0.0] if name is None else [said[name] - old for old in OLD]
            assert values == ratios
        assert set(services.logged) == {f"distill/kl/{name}" for name in expected if name is not None}


class PerToken(CreditSpec):
    """An advantage of its own for each token, as a list."""

    type: Literal["per_token"] = "per_token"

    def credit(self, groups: Sequence[CreditGroup], context: StepContext) -> list[list[list[float]]]:
        return [[[0.1 * i for i in range(len(s.token_ids))] for s in one.samples] for one in groups]


def test_the_rewards_part_may_differ_from_token_to_token_and_stays_float64() -> None:
    spec = Distill.model_construct(judge="one", reward=PerToken(), reward_weight=1.0, weight=1.0, field=None)
    services = FakeServices()
    services.judges = {"one": Told("one")}
    component = BuildContext().build(spec)
    [[found]] = component.credit([group(response())], example_step(services=services))  # type: ignore[union-attr]
    assert found.tolist() == pytest.approx([ratio + 0.1 * i for i, ratio in enumerate(RATIOS)], rel=1e-14)  # type: ignore[union-attr]


def test_a_log_prob_that_is_no_number_names_the_judge() -> None:
    for value in (float("nan"), float("-inf")):
        with pytest.raises(PluginError, match="the judge one gave a log-prob that is no finite number"):
            credited([group(response())], [FakeJudge("one", value)], judge="one")


def test_it_says_whom_it_asks() -> None:
    assert Distill(judge="a").judges == {"a"}
    assert Distill().judges == Distill(field="x").judges == Distill(judge="a", field="x").judges == {EVERY_JUDGE}
    assert [spec.reads_selections for spec in (Distill(), Distill(judge="a"), Distill(field="x"))] == [
        True,
        False,
        False,
    ]


def test_a_question_or_a_teacher_without_a_judge_is_refused() -> None:
    rows = [example_question(i, extra={"kind": kind}) for i, kind in enumerate(["a", "b", "c"])]
    judges = ["start", "policy", "a", "b"]
    Distill(field="kind").check(rows[:2], judges, ["nobody"])
    with pytest.raises(DataError, match=r"advantage\.field: kind of question 3 is 'c'; expected .*: start, policy, a"):
        Distill(field="kind").check(rows, judges, [])
    with pytest.raises(DataError, match="kind of question 1 is None"):
        Distill(field="kind").check([example_question()], judges, [])
    Distill().check(rows, judges, ["a", "b"])
    Distill(judge="a").check(rows, judges, ["c"])
    with pytest.raises(DataError, match="no judge is named like 'c', 'd', whose answers may be selected"):
        Distill().check(rows, judges, ["a", "c", "d"])
    with pytest.raises(DataError, match="no judge is named like 'c'"):
        Distill(judge="a", reward=Distill()).check(rows, judges, ["c"])
