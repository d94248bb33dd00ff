"""Countdown: arithmetic over given numbers, whatever a policy writes."""

from __future__ import annotations

import pytest
from ampo_plugins.rewards import Countdown
from ampo_registry import GradeRequest
from ampo_registry.testing import check_reward

TRUTH = '{"target": 24, "numbers": [3, 5, 7, 4]}'


def correct(answer: str, spec: Countdown | None = None, truth: str = TRUTH) -> bool:
    (grade,) = (spec or Countdown()).grade([GradeRequest(f"so <answer> {answer} </answer>", truth)])
    return grade.correct


@pytest.mark.parametrize("spec", [Countdown(), Countdown(use="some")], ids=["all", "some"])
def test_conformance(spec: Countdown) -> None:
    check_reward(spec)


@pytest.mark.parametrize(
    "answer", ["(3 + 5) * (7 - 4)", "(3+5)×(7−4)", "[3+5]*(7-4)", "5*4 + 7\n- 3", "-(3-7-5*4)", "+3*(7+5-4)"]
)
def test_right(answer: str) -> None:
    assert correct(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "3 + 5 + 7 + 4",
        "(3 + 5) * 3",
        "3 * (7 + 5 - 4) + 4 - 4",
        "24",
        "(3 + 5) * (7 - 4) = 24",
        "3 ** 5 * 0 + 7 * 4 - 4",
        "47 - 3 - 5 * 4",
        "(3 + 5) * (7 - 4) * 1",
        "(3 + 5) * (7 - 4) if True else 0",
        "__import__('os').getpid()",
        "9**9**9**9",
        "3 + 5 // 7 + 4",
        "3 / (5 - 5) + 7 + 4",
        "3(5 + 7)",
        "",
        "(" * 500 + "3" + ")" * 500,
        "-" * 900 + "3",
        "-" * 100_000 + "3",
        "1" * 900,
        "3\x005",
    ],
    ids=range(20),
)
def test_wrong(answer: str) -> None:
    assert not correct(answer)


def test_division_is_exact_and_a_number_counts_as_often_as_it_is_given() -> None:
    assert correct("8 / (3 - 8 / 3)", truth='{"target": 24, "numbers": [3, 3, 8, 8]}')
    assert not correct("8 * 3", truth='{"target": 24, "numbers": [3, 3, 8, 8]}')
    assert correct("8 * 3", Countdown(use="some"), truth='{"target": 24, "numbers": [3, 3, 8, 8]}')
    assert not correct("8 + 8 + 8", Countdown(use="some"), truth='{"target": 24, "numbers": [3, 3, 8, 8]}')


def test_the_answer_is_the_last_one_outside_a_thought() -> None:
    text = "<think> <answer> 3 + 5 </answer> </think> <answer> 1 </answer> or <answer>(3 + 5) * (7 - 4)</answer>"
    spec = Countdown()
    assert [g.correct for g in spec.grade([GradeRequest(text, TRUTH), GradeRequest("3 + 5", TRUTH)])] == [True, False]
    inside = GradeRequest("<think> <answer> (3 + 5) * (7 - 4) </answer> </think> no", TRUTH)
    assert [Countdown(skip_thoughts=skip).grade([inside])[0].correct for skip in (True, False)] == [False, True]


@pytest.mark.parametrize(
    ("truth", "said"),
    [
        ("", "it is no JSON"),
        ("24", "a target alone needs reward.numbers_column"),
        ("[24]", "it must be a JSON object"),
        ('{"target": 24}', "numbers must be a list of 1 to 32 whole numbers; found None"),
        ('{"target": "24", "numbers": [3]}', "target must be a whole number"),
        ('{"target": 24, "numbers": "35"}', "numbers must be a list"),
        ('{"target": 24, "numbers": [3, 2.5]}', "found 2.5"),
        ('{"target": 24, "numbers": [3, true]}', "found True"),
        ('{"target": 1e400, "numbers": [3]}', "target must be"),
        ('{"target": 24, "numbers": [1000000000001]}', "whole numbers of at most 1e"),
    ],
    ids=range(10),
)
def test_truths_that_nothing_could_reach(truth: str, said: str) -> None:
    found = Countdown().check_truth(truth)
    assert found is not None
    assert said in found


def test_the_numbers_may_stand_in_the_row() -> None:
    spec = Countdown(numbers_column="extra_info.nums")
    assert (spec.check_truth("24"), spec.check_truth(TRUTH)) == (None, None)
    right = "<answer> (3 + 5) * (7 - 4) </answer>"
    row = {"extra_info": {"nums": [3, 5, 7, 4]}}
    assert spec.grade([GradeRequest(right, "24", extra=row)])[0].correct
    assert not spec.grade([GradeRequest(right, "24", extra={"extra_info": {"nums": [3, 5, 7]}})])[0].correct
    with pytest.raises(ValueError, match=r"question u: its row has no column extra_info\.nums"):
        spec.grade([GradeRequest(right, "24", uid="u")])
