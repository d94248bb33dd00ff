"""The rewards `exact` and `regex`."""

import pytest
from ampo_plugins.rewards import Exact, Regex
from ampo_registry import GradeRequest
from ampo_registry.testing import check_reward
from pydantic import ValidationError

STRICT, FLEXIBLE = r"#### (-?[0-9.,]+)", r"(-?[$0-9.,]{2,})|(-?[0-9]+)"
"""What lm-evaluation-harness reads GSM8K's answers with; the flexible one takes the last match."""


def correct(spec, text, truth):
    return spec.grade([GradeRequest(text, truth)])[0].correct


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("<answer>Paris</answer>", "paris"),
        ("<answer> New\n York. </answer>", "New York"),
        ('<answer>"Paris"</answer>', "Paris"),
        ("<answer>**Paris**.</answer>", "Paris"),
        ("<ANSWER>Paris</ANSWER>", "Paris"),
        ("<answer>London</answer> no, <answer>Paris</answer>", "Paris"),
        ("<think><answer>London</answer></think>\\boxed{Paris}", "Paris"),
        ("<answer>Ｐａｒｉｓ</answer>", "Paris"),
        ("<answer>cafe\u0301</answer>", "caf\u00e9"),
        ("<answer>STRASSE</answer>", "Straße"),
        ("<answer>1,007</answer>", "1007"),
        ("<answer>$1007.00</answer>", "1,007"),
        ("<answer>\u22125</answer>", "-5"),
        ("<answer>.50.</answer>", "0.5"),
        ("Paris", "Paris"),
        ("<answer>!</answer><answer>A. B.</answer>", "a. b"),
    ],
)
def test_what_is_the_same_text(text, truth):
    assert correct(Exact(), text, truth)


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("<answer>York</answer>", "New York"),
        ("<answer>NewYork</answer>", "New York"),
        ("<answer>It is Paris</answer>", "Paris"),
        ("It is Paris", "Paris"),
        ("<answer>10²</answer>", "102"),
        ("<answer>5</answer>", "-5"),
        ("<answer>1,07</answer>", "107"),
        ("<answer>0.51</answer>", "0.5"),
        ("<answer></answer>", "Paris"),
        ("", "Paris"),
        ("<answer>cafe</answer>", "café"),
        ("<answer>...</answer>", "Paris"),
    ],
)
def test_what_is_another_text(text, truth):
    assert not correct(Exact(), text, truth)


def test_options_of_a_comparison():
    assert not correct(Exact(ignore_case=False), "<answer>paris</answer>", "Paris")
    assert not correct(Exact(punctuation="keep"), "<answer>Paris.</answer>", "Paris")
    assert correct(Exact(punctuation="all"), "<answer>it's so</answer>", "its so!")
    assert not correct(Exact(numbers=False), "<answer>7.0</answer>", "7")
    assert not correct(Exact(untagged="wrong"), "Paris", "Paris")
    assert correct(Exact(skip_thoughts=False), "<think><answer>Paris</answer></think> so", "Paris")


@pytest.mark.parametrize("truth", ["", "  ", "..."])
def test_a_ground_truth_of_which_nothing_is_left_is_refused(truth):
    assert Exact().check_truth(truth)
    assert Regex(pattern=STRICT).check_truth(truth)


def test_the_matches_of_gsm8k():
    strict, flexible = Regex(pattern=STRICT, example="so #### 1,007"), Regex(pattern=FLEXIBLE)
    assert correct(strict, "5 + 2 = 7\n#### 7", "7")
    assert correct(strict, "#### 1,007.", "1007")
    assert not correct(strict, "The answer is 7", "7")
    assert correct(flexible, "The answer is $7.00.", "7")
    assert not correct(flexible, "7 or 8", "7")
    assert correct(Regex(pattern=FLEXIBLE, take="first"), "7 or 8", "7")
    assert correct(Regex(pattern="(?i)answer: (.+)"), "Answer: New York.", "new york")
    assert correct(Regex(pattern=r"[A-D]$"), "it is B", "B")


def test_what_the_pattern_finds_is_the_format():
    right, wrong, none = Regex(pattern=STRICT).grade([GradeRequest(t, "7") for t in ("#### 7", "#### 8", "7")])
    assert (right.reward, right.formatted) == (1.0, True)
    assert (wrong.reward, wrong.formatted) == (pytest.approx(0.1), True)
    assert (none.reward, none.formatted) == (0.0, False)


def test_thoughts_are_not_looked_through():
    assert not correct(Regex(pattern=STRICT), "<think>#### 7</think> so it is", "7")
    assert correct(Regex(pattern=STRICT, skip_thoughts=False), "<think>#### 7</think> so it is", "7")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pattern": "#### ("}, "pattern: missing ), unterminated subpattern at character 6"),
        ({"pattern": STRICT, "example": "7"}, "finds nothing in the example '7'"),
        ({"pattern": ""}, "at least 1 character"),
    ],
    ids=["no-pattern", "no-match", "empty"],
)
def test_a_pattern_that_cannot_be_used_is_refused(options, said):
    with pytest.raises(ValidationError) as raised:
        Regex(**options)
    assert said in raised.value.errors()[0]["msg"]


def test_they_keep_the_contract():
    check_reward(Exact(), "Paris", "London")
    check_reward(Regex(pattern=STRICT, example="so #### 7"))
