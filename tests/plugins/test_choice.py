"""The reward `choice`."""

import pytest
from ampo_plugins.rewards.choice import Choice, chosen_letter
from ampo_registry import GradeRequest


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("<answer>B</answer>", "B"),
        ("<answer> (b). </answer>", "B"),
        ("<answer>$\\boxed{\\text{C}}$</answer>", "C"),
        ("<answer>**D**</answer>", "D"),
        ("<answer>B) 42</answer>", "B"),
        ("<answer>(B) 42</answer>", "B"),
        ("<answer>B. Paris</answer>", "B"),
        ("<answer>The answer is J</answer>", "J"),
        ("<answer>A</answer> no, <answer>B</answer>", "B"),
        ("The answer is C. <answer>B</answer>", "B"),
        ("The answer is (D).", "D"),
        ("Answer: **E**", "E"),
        ("**Answer:** F", "F"),
        ("The correct choice is B because it fits", "B"),
        ("The answer is B. Option C is wrong.", "B"),
        ("The answer is A", "A"),
        ("first the answer is A, but then the answer is B", "B"),
        ("so \\boxed{G}", "G"),
        ("H", "H"),
        ("<answer>Option B</answer>", "B"),
        ("<answer>\\(B\\)</answer>", "B"),
        ('<answer>"B"</answer>', "B"),
        ("<answer>“B”</answer>", "B"),
        ("<answer>B,</answer>", "B"),
        ("<answer>B - Paris</answer>", "B"),
        ("<answer>\\boxed{B. Paris}</answer>", "B"),
        ("<answer>\\mathbf{B}</answer>", "B"),
        ("<answer>（B）</answer>", "B"),
        ("<ANSWER>B</ANSWER>", "B"),
        ("<answer>B. Vitamin C</answer>", "B"),
        ("<answer>B. A dog</answer>", "B"),
        ("<answer>The answer is: B, because A is wrong</answer>", "B"),
        ("so option B is correct", "B"),
        ("Option (B) is the right one", "B"),
        ("\\boxed{B. Paris}", "B"),
        ("<answer>A. B. C. D.</answer>", None),
        ("<answer>B) or C)</answer>", None),
        ("<answer>The answer is B or A</answer>", None),
        ("The answer is (A) or (B)", None),
        ("<answer>A) one B) two</answer>", None),
        ("<answer>A. one\nB. two</answer>", None),
        ("<answer>\\boxed{A} or \\boxed{B}</answer>", None),
        ("<answer>A good one</answer>", None),
        ("<answer>Both A and B</answer>", None),
        ("<answer>K</answer>", None),
        ("<answer>Paris</answer>", None),
        ("<answer></answer>", None),
        ("The answer is a dog", None),
        ("The answer is A good one", None),
        ("The answer is Apple", None),
        ("", None),
    ],
)
def test_chosen_letter(text, letter):
    assert chosen_letter(text) == letter


@pytest.mark.parametrize("text", ["<answer>B. A. C.</answer>", "<answer>B) or C)</answer>", "The answer is B or A"])
def test_a_second_letter_counts_unless_one_answer_is_off(text):
    assert Choice(one_answer=False).grade([GradeRequest(text, "B")])[0].correct
    assert not Choice().grade([GradeRequest(text, "B")])[0].correct


def test_tags_inside_a_thought_do_not_count():
    text = "<think><answer>B</answer> no</think> So the answer is C"
    assert Choice().grade([GradeRequest(text, "C")])[0].correct
    assert Choice(skip_thoughts=False).grade([GradeRequest(text, "B")])[0].correct


def test_grade():
    right, wrong, unsaid = Choice().grade(
        [
            GradeRequest("<answer>b</answer>", "B"),
            GradeRequest("<answer>A</answer>", "B"),
            GradeRequest("no idea", "B"),
        ]
    )
    assert (right.reward, right.correct) == (1.0, True)
    assert (wrong.reward, wrong.correct) == (pytest.approx(0.1), False)
    assert (unsaid.reward, unsaid.correct) == (0.0, False)


@pytest.mark.parametrize("truth", ["A", "j", " B "])
def test_letters_are_truths(truth):
    assert Choice().check_truth(truth) is None
    assert Choice().grade([GradeRequest(f"<answer>{truth}</answer>", truth)])[0].correct


@pytest.mark.parametrize("truth", ["", "K", "AB", "42", "(A)"])
def test_other_truths_are_refused(truth):
    assert Choice().check_truth(truth) == "it is not a letter from A to J"


def test_canaries_hold():
    spec = Choice()
    requests, expected = zip(*spec.canaries(), strict=True)
    assert [grade.correct for grade in spec.grade(requests)] == list(expected) == [True, False]
