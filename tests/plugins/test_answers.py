"""What `math_verify` takes for the answer of a response, and as how many answers it counts."""

import pytest
from ampo_plugins.rewards.answer_tags import without_thoughts
from ampo_plugins.rewards.claims import names_several
from ampo_plugins.rewards.math_verify import MathVerify
from ampo_registry import GradeRequest
from ampo_registry.text import last_box

RELEASED = {"normalise": False, "exact_numbers": False, "one_answer": False, "skip_thoughts": False}
HUNDRED = "=".join(map(str, [*range(99), 42]))


def correct(answer, truth, **options):
    (grade,) = MathVerify(**options).grade([GradeRequest(f"so <answer> {answer} </answer>", truth)])
    return grade.correct


def reward(text, **options):
    (grade,) = MathVerify(**options).grade([GradeRequest(text, "42")])
    return grade.reward


@pytest.mark.parametrize(
    "answer",
    [
        "41 = 42",
        r"41 \to 42",
        "41 → 42",
        "41 (or 42)",
        "41 | 42",
        r"41 \mid 42",
        r"41 \lor 42",
        r"41 \implies 42",
        r"41 \equiv 42",
        r"41 \cup 42",
        "41 := 42",
        "41 & 42",
        "41? 42",
        "41. 42",
        "41) 42",
        "41 ... 42",
        r"\frac{41}{1} = 42",
        r"x=41 \Rightarrow x=42",
        HUNDRED,
    ],
)
def test_a_second_value_counts_as_wrong(answer):
    assert correct(answer, "42", one_answer=False)
    assert not correct(answer, "42")


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("70+3=73", "73"),
        (r"x \approx 42", "42"),
        (r"x \to 42", "42"),
        ("x = 84/2 = 42", "42"),
        (r"6 \cdot 7 = \frac{84}{2} = 42", "42"),
        (r"2x = 84 \Rightarrow x = 42", "42"),
        (r"\frac{2}{7} = 0.2857", "0.2857"),
        (r"\sqrt{2} = 1.414", "1.414"),
        (r"\frac{1}{2} = 50\%", "0.5"),
        (r"90^\circ = \frac{\pi}{2}", r"\frac{\pi}{2}"),
        ("x=1 or x=2", "1, 2"),
        ("x = 2, y = 3", "2, 3"),
        (r"|-42| = 42", "42"),
        (r"\begin{pmatrix} 1 \\ 2 \\ 3 \end{pmatrix}", r"\begin{pmatrix}1\\2\\3\end{pmatrix}"),
    ],
)
def test_one_value_in_several_ways_is_one_answer(answer, truth):
    assert correct(answer, truth)


def test_an_item_of_a_list_may_not_be_two():
    assert names_several("41 = 42, 7", "42, 7")
    assert not names_several("40+2 = 42, 7", "42, 7")


def test_a_number_and_a_hundredth_of_it_are_both_what_a_percentage_says():
    assert all(correct(r"50\%", truth) for truth in ("50", "0.5", r"\frac{1}{2}", "50%"))
    assert correct("62.5", "62.5%")
    assert not correct("0.5%", "50%")


UNFINISHED = "<think> it may be 42, or so"
INSIDE = "<think> I try <answer>42</answer> first </think> It does not hold, and the result of all this is \\boxed{41}"


def test_an_unfinished_thought_that_mentions_the_truth_earns_what_the_paper_gives():
    assert reward(UNFINISHED) == pytest.approx(0.9)
    assert reward(UNFINISHED, untagged="boxed") == reward(UNFINISHED, untagged="wrong") == 0.0
    assert reward("<think> so \\boxed{42}", untagged="boxed") == pytest.approx(0.9)
    assert reward("so \\boxed{42}", untagged="wrong") == 0.0
    assert reward("so <answer>42</answer>", untagged="wrong") == 1.0


def test_tags_inside_a_thought_do_not_count():
    assert reward(INSIDE, skip_thoughts=False) == 1.0
    assert reward(INSIDE) == pytest.approx(0.1)
    assert reward("<think> <answer>41</answer> no </think> <answer>42</answer>") == pytest.approx(0.9)
    assert reward("<think> so <answer>42</answer>") == 1.0


@pytest.mark.parametrize(
    ("text", "outside"),
    [
        ("a", "a"),
        ("<think>a</think>b", "b"),
        ("a</think>b", "b"),
        ("a<think>b</think>c<think>d</think>e", "ace"),
        ("<think>a<think>b</think>c</think>d", "d"),
        ("a<think>b", "a<think>b"),
        ("<think>a</think>b<think>c", "b<think>c"),
        ("<think>a</think> ", "<think>a</think> "),
        ("", ""),
    ],
)
def test_without_thoughts(text, outside):
    assert without_thoughts(text) == outside


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("no box", None),
        ("\\boxed{1} then \\boxed{ \\frac{1}{2} } end", "\\frac{1}{2}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{1", None),
    ],
)
def test_boxed_answer(text, content):
    assert last_box(text) == content


def test_tags_in_capitals_are_tags():
    assert reward("I tried 41. <ANSWER>42</ANSWER> and 40") == pytest.approx(0.9)


def test_scraps_are_listed():
    """Ground truths of which Math-Verify keeps a part, and one whose every part it keeps."""
    notes = {
        r"\frac{1}{3} E_{1}+\frac{2}{3} E_{2}": "reads no more of it than 2/3",
        "$6m$": "takes a letter of it for a unit and reads 6",
        "40_9": "leaves out the base and reads 40",
        "-2,-2": "what is repeated counts once",
    }
    assert all(note in MathVerify().note_truth(truth) for truth, note in notes.items())
    whole = ("5.47e5", "-1./3", "2,3", r"5.4 \text{ cents}", r"15\mbox{ cm}^2", r"\frac{1}{3} x + y", "$x_1+x_2$")
    assert [MathVerify().note_truth(truth) for truth in whole] == [None] * len(whole)


def test_what_the_options_add_is_off_without_them():
    answers = {"42.": "42", "5.47e5": r"5.47 \times 10^{5}", "**42**": "42", "76°": r"76^\circ"}
    assert all(correct(*pair) and not correct(*pair, **RELEASED) for pair in answers.items())
