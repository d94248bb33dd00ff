"""The reward that is the weighted sum of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import pytest
from ampo_plugins.rewards import Choice, Countdown, MathVerify
from ampo_plugins.rewards.sum import Part, Sum
from ampo_registry import BuildContext, Grade, GradeRequest, NgramPenalty, PluginError, Reward, RewardSpec
from ampo_registry.catalog import Catalog
from ampo_registry.testing import check_reward
from pydantic import ValidationError


class Brief(RewardSpec):
    """1 for few words; breaks what `fault` says."""

    type: Literal["brief"] = "brief"
    logs: ClassVar[tuple[str, ...]] = ("brief/words",)
    fault: str = ""

    def grade(self, requests: Sequence[GradeRequest]) -> list[Grade]:
        faults: dict[str, Any] = {"short": [], "none": [None] * len(requests), "nan": [Grade(float("nan"), True, True)]}
        return faults[self.fault] if self.fault in faults else [self._one(request) for request in requests]

    def check_truth(self, answer: str) -> str | None:
        return "it is seven" if answer == "7" else None

    def note_truth(self, answer: str) -> str | None:
        return "it is eight" if answer == "8" else None

    def canaries(self) -> Sequence[tuple[GradeRequest, bool]]:
        return [(GradeRequest("a b c d e f", ""), self.fault == "canary")]

    def _one(self, request: GradeRequest) -> Grade:
        words = len(request.text.split())
        status: Any = "error" if self.fault == "status" else "ok"
        numbers = {"sum/math_verify" if self.fault == "number" else "brief/words": float(words)}
        return Grade(float(words < 4), words < 4, True, status, "odd" if self.fault else "", numbers)


def summed(*parts: dict[str, Any], **options: Any) -> Sum:
    catalog = Catalog()
    for spec in (MathVerify, Choice, Countdown, Brief, Sum):
        catalog.add(spec, "test", "0")
    found = catalog.resolve("reward", {"type": "sum", "parts": list(parts), **options})
    assert isinstance(found, Sum)
    return found


def built(*parts: dict[str, Any], **options: Any) -> Reward:
    return summed(*parts, **options).build(BuildContext())


MATHS: dict[str, Any] = {"reward": "math_verify", "weight": 0.8}
BRIEF: dict[str, Any] = {"reward": {"type": "brief"}, "weight": 0.2}


def broken(fault: str) -> dict[str, Any]:
    return {"reward": {"type": "brief", "fault": fault}}


def test_conformance() -> None:
    check_reward(summed(MATHS, BRIEF), "42", "41")
    own = summed({"reward": "choice"}, {"reward": "choice", "weight": 0.5, "name": "again"}, format_weight=0.2)
    right, wrong = (GradeRequest(f"so <answer>{letter}</answer>", "B") for letter in "BA")
    check_reward(own, right=[right], wrong=[wrong], bounds=(0.0, 1.5))


def test_it_is_the_sum_and_the_first_part_decides() -> None:
    reward = built(MATHS, BRIEF)
    long, short, wrong = reward.grade(
        [GradeRequest(text, "42") for text in ("one two three <answer>42</answer>", "42", "<answer>41</answer>")]
    )
    assert [grade.reward for grade in (long, short, wrong)] == pytest.approx([0.8, 0.8 * 0.9 + 0.2, 0.08 + 0.2])
    assert [grade.correct for grade in (long, short, wrong)] == [True, True, False]
    assert [grade.formatted for grade in (long, short, wrong)] == [True, False, True]
    assert long.numbers == {"sum/math_verify": 1.0, "sum/brief": 0.0, "brief/words": 4.0}
    (own,) = built(MATHS, BRIEF, format_weight=0.5).grade([GradeRequest("<answer>41</answer>", "42")])
    assert own.reward == pytest.approx(0.5 * 0.28 + 0.5)


def test_all_parts_that_decide_must_agree() -> None:
    both = built({**MATHS, "decides": True}, {**BRIEF, "decides": True})
    second = built(MATHS, {**BRIEF, "decides": True})
    requests = [GradeRequest("one two three <answer>42</answer>", "42"), GradeRequest("<answer>41</answer>", "42")]
    assert [grade.correct for grade in both.grade(requests)] == [False, False]
    assert [grade.correct for grade in second.grade(requests)] == [False, True]


def test_a_truth_must_be_one_for_every_part() -> None:
    spec = summed(MATHS, BRIEF)
    assert spec.build(BuildContext()).check_truth("7") == "brief: it is seven"
    assert spec.build(BuildContext()).check_truth("") == "math_verify: it is empty"
    assert spec.build(BuildContext()).check_truth("8") is None
    assert (spec.note_truth("8"), spec.note_truth("9")) == ("brief: it is eight", None)
    assert (spec.truth_is_answer, summed({"reward": "countdown"}, BRIEF).truth_is_answer) == (True, False)
    assert spec.logs == ("sum/math_verify", "sum/brief", "brief/words")


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([], "at least 1 item"),
        ([MATHS, MATHS], "two parts give the metric sum/math_verify: give one of them a name of its own"),
        ([BRIEF, {**BRIEF, "name": "other"}], "two parts give the metric brief/words"),
        ([{**MATHS, "name": "a/b"}], "should match pattern"),
        ([{**MATHS, "weight": float("nan")}], "finite number"),
        ([{"reward": {"type": "choice", "repetition_penalty": {}}}], "part choice has a penalty: repetition_penalty"),
    ],
    ids=["none", "twice", "numbers", "name", "weight", "penalty"],
)
def test_refused(parts: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        summed(*parts)


def test_options_that_hold_for_all_parts_do_nothing_in_one() -> None:
    (warning,) = summed({"reward": {"type": "choice", "timeout_s": 1}}).warnings()
    assert warning[0] == "parts"
    assert warning[1].startswith("choice: timeout_s does nothing in a part")
    penalty = NgramPenalty()
    assert summed(MATHS, repetition_penalty={}).repetition_penalty == penalty


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("short", r"part brief: grade\(\) gave \[\] for 1 requests"),
        ("none", r"part brief: grade\(\) gave None, expected a Grade"),
        ("nan", r"part brief: grade\(\) gave Grade\(reward=nan"),
        ("number", "part brief gives the number sum/math_verify, which another part gives too"),
    ],
)
def test_a_part_that_fails_is_named(monkeypatch: pytest.MonkeyPatch, fault: str, said: str) -> None:
    monkeypatch.setattr(Brief, "canaries", lambda self: ())
    with pytest.raises(PluginError, match=said):
        built(MATHS, broken(fault)).grade([GradeRequest("42", "42")])


def test_a_part_without_a_verdict_leaves_the_sum_without_one() -> None:
    (grade,) = built(MATHS, broken("status")).grade([GradeRequest("42", "42")])
    assert (grade.status, grade.detail) == ("error", "brief: odd")


def test_a_part_that_gets_its_own_canary_wrong_is_found_before_the_run() -> None:
    with pytest.raises(PluginError, match="part brief is broken here: 'a b c d e f' must be correct"):
        built(MATHS, broken("canary"))


def test_a_sum_may_hold_a_sum() -> None:
    inner: Callable[..., dict[str, Any]] = lambda name: {  # noqa: E731
        "reward": {"type": "sum", "parts": [{"reward": "choice"}]},
        "name": name,
    }
    assert summed(inner("inner"), MATHS).logs == ("sum/inner", "sum/math_verify", "sum/choice")
    assert isinstance(summed(inner("x")).parts[0], Part)
