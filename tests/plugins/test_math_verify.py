"""The reward `math_verify`, outside a worker."""

import pytest
from ampo_plugins.rewards import library
from ampo_plugins.rewards.answer_tags import tagged_answer
from ampo_plugins.rewards.math_verify import MathVerify
from ampo_registry import GradeRequest


def verdict(text, truth, **options):
    (grade,) = MathVerify(**options).grade([GradeRequest(text, truth)])
    return grade


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("no tags", None),
        ("<answer>1", None),
        ("1</answer>", None),
        ("<answer> 1 </answer>", "1"),
        ("<answer>1</answer> wait <answer>2</answer> end", "2"),
        ("<answer>1</answer> wait <answer>2", "1"),
        ("<answer>1 <answer>2</answer>", "2"),
        ("<answer>1</answer></answer>", "1"),
        ("<answer>\n1\n+2\n</answer>", "1\n+2"),
        ("<answer></answer>", ""),
    ],
)
def test_tagged_answer(text, content):
    assert tagged_answer(text) == content


@pytest.mark.parametrize(
    ("text", "truth", "correct"),
    [
        ("<answer>\\frac{2}{4}</answer>", "0.5", True),
        ("<answer> x^2+2x+1 </answer>", "(x+1)^2", True),
        ("<answer>\\boxed{42}</answer>", "42", True),
        ("<answer>$42$</answer>", "$42$", True),
        ("<answer>1, 2</answer>", "\\{2, 1\\}", True),
        ("I get \\boxed{42}", "42", True),
        ("\\boxed{42} <answer>41</answer>", "42", False),
        ("<answer></answer>", "42", False),
        ("", "42", False),
        ("<answer>np.arcsin(10/13)</answer>", "np.arcsin(10/13)", True),
    ],
)
def test_verdicts(text, truth, correct):
    assert verdict(text, truth).correct is correct


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<answer>42</answer>", 1.0),
        ("\\boxed{42}", 0.9),
        ("<answer>41</answer>", 0.1),
        ("\\boxed{41}", 0.0),
    ],
)
def test_reward_is_equation_8(text, reward):
    assert verdict(text, "42").reward == pytest.approx(reward, abs=1e-12)


def test_format_weight():
    assert verdict("\\boxed{42}", "42", format_weight=0.5).reward == 0.5


@pytest.mark.parametrize(
    ("truth", "reason"),
    [
        ("42", None),
        ("\\left( 3, \\frac{\\pi}{2} \\right)", None),
        ("", "it is empty"),
        (" \n", "it is empty"),
    ],
)
def test_check_truth(truth, reason):
    assert MathVerify().check_truth(truth) == reason


@pytest.mark.parametrize("truth", ["np.arcsin(10/13)", "E_{1},E_{2}"])
def test_truths_that_are_only_strings_are_listed_or_refused(truth):
    assert MathVerify().check_truth(truth) is None
    assert "only as a string" in MathVerify().note_truth(truth)
    assert "only as a string" in MathVerify(string_truths="refuse").check_truth(truth)
    assert verdict(f"<answer> {truth} </answer>", truth).correct
    assert MathVerify(string_truths="refuse").check_truth("42") is MathVerify().note_truth("42") is None


def test_a_fraction_with_a_point_is_a_number_unless_numbers_are_left_to_math_verify():
    assert verdict("<answer> -1/3 </answer>", "-1./3").correct
    assert MathVerify().note_truth("-1./3") is None
    assert "only as a string" in MathVerify(exact_numbers=False).note_truth("-1./3")


@pytest.mark.parametrize("broken", [True, False])
def test_canaries_ask_math_verify_itself(monkeypatch, broken):
    spec = MathVerify()
    monkeypatch.setattr(library, "equal", lambda *_: broken)
    requests, expected = zip(*spec.canaries(), strict=True)
    assert [grade.correct for grade in spec.grade(requests)] == [broken, broken] != list(expected)


def test_canaries_hold():
    spec = MathVerify()
    requests, expected = zip(*spec.canaries(), strict=True)
    assert [grade.correct for grade in spec.grade(requests)] == list(expected) == [True, False]
