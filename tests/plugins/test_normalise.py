"""What surrounds an answer is left out, and nothing else."""

import time

import pytest
from ampo_plugins.rewards.answer_tags import tagged_answer, without_thoughts
from ampo_plugins.rewards.choice import chosen_letter
from ampo_plugins.rewards.claims import names_several
from ampo_plugins.rewards.normalise import characters, normalised, with_powers
from ampo_plugins.rewards.numbers import read_number
from ampo_registry.text import last_box
from hypothesis import given, settings
from hypothesis import strategies as st

PIECES = (
    "**",
    "*",
    "`",
    "\\\\",
    ".",
    "...",
    ",",
    ";",
    ":",
    "$",
    "{",
    "}",
    "(",
    ")",
    "|",
    "=",
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "<ANSWER>",
    "\\boxed{",
    "the answer is ",
    "Answer: ",
    "so ",
    " is the answer",
    ". This is it",
    "41",
    "4.2e5",
    " \\times 10^{5}",
    "50%",
    "°",
    "^\\circ",
    "​",
    "４",
    "−",
    "–",
    "⁵",
    "√",
    "½",
    "\\frac{1}{2}",
    "\\to ",
    " or ",
    "1,000",
    "\\text{",
    "\\right.",
    "\\ldots",
    "x",
    "B",
    "A. ",
    "(B) ",
    "Option ",
    "\n",
    " ",
    '"',
    "“",
    "”",
    "\\begin{pmatrix}",
)
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=25).map("".join)
READERS = (
    normalised,
    characters,
    with_powers,
    without_thoughts,
    last_box,
    lambda text: tagged_answer(text, any_case=True),
    read_number,
    chosen_letter,
)


@pytest.mark.parametrize(
    ("written", "bare"),
    [
        ("41.", "41"),
        ("41,;", "41"),
        ("**41**", "41"),
        ("**41.**", "41"),
        ("The answer is **41**.", "41"),
        ("**Answer:** 41", "41"),
        ("So the final answer is: $41$.", "$41$"),
        ("$41.$", "$41$"),
        ("\\boxed{41.}", "\\boxed{41}"),
        ("41 \\\\", "41"),
        ("41\\,", "41"),
        ("41. This is the answer.", "41"),
        ("41 is my final answer", "41"),
        ("\\text{east}, which is right", "\\text{east}"),
        ("４１\u200b", "41"),
        ("−5", "-5"),
        ("–5", "-5"),
        ("76°", "76^{\\circ}"),
        ("10⁻⁵", "10^{-5}"),
        ("2**3", "2**3"),
        ("2 ** 3", "2 ** 3"),
        ("1, 2, \\ldots", "1, 2, \\ldots"),
        ("0.333...", "0.333..."),
        ("\\left. x \\right.", "\\left. x \\right."),
        ("3!", "3!"),
        ("f'", "f'"),
        ("41. Or 42", "41. Or 42"),
        ("41 is the wrong answer", "41 is the wrong answer"),
        ("Dr. Smith", "Dr. Smith"),
        ("J. Smith", "J. Smith"),
    ],
)
def test_normalised(written, bare):
    assert normalised(written) == bare


@given(texts)
@settings(max_examples=1000, deadline=None)
def test_reading_never_raises_and_normalising_is_done_once(text):
    for read in READERS:
        read(text)
    assert normalised(normalised(text)) == normalised(text)
    assert characters(characters(text)) == characters(text)
    assert with_powers(with_powers(text)) == with_powers(text)


@pytest.mark.parametrize(
    "piece", [*PIECES, "5", "1=", "1,111", "__a", "1 \\times 10^", "\\text{ or ", "<answer>1", "answer is "]
)
def test_hostile_texts_take_no_time(piece):
    for length in (4000, 100_000):
        text = (piece * (length // len(piece) + 1))[:length]
        for hostile in (text, text + "!1"):
            for read in (*READERS, lambda said: names_several(said, "42")):
                start = time.process_time()
                read(hostile)
                assert time.process_time() - start < 1.0, (piece, length, read)
