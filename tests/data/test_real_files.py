"""The authors' evaluation files, unchanged, and a sample of them that is always here."""

import os
from collections import Counter
from pathlib import Path

import pytest
from ampo_plugins.rewards.math_verify import MathVerify
from ampo_registry import GradeRequest

from ampo_core.data.questions import load_questions
from ampo_core.grading.grader import Grader

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("AMPO_SHARED", ROOT / ".." / "shared")) / "data"
SAMPLE = ROOT / "tests" / "golden" / "data" / "sample.jsonl"

# (rows, distinct questions, of these listed because of their ground truth)
FILES = {
    "valid.parquet": (2019, 1560, 21),
    "valid.math.parquet": (6023, 1590, 21),
    "valid_pass_at_256.parquet": (143, 143, 0),
    "valid_pass_at_32.parquet": (500, 500, 6),
}
# The listed ground truths: Math-Verify parses them only as strings. All that the files hold are accepted.
STRING_TRUTHS = {
    "$m_{\\max }=n^{2}-n-1$",
    "$t(0,4]$",
    "np.arcsin(10/13)",
    "\\frac{dM}{dt}=\\frac{10^{5} L_{\\odot}}{0.007 c^{2} M_{\\odot}^{6}} M^{6}",
    "E_{1},E_{2}",
}
# These are numbers to `exact_numbers`, and strings without it.
NUMBERS = {"-1./3", "-3./2"}
# The bases that Math-Verify leaves out, all of MATH500; with the others that it reads in part.
BASES = {"204_5", "2516_8", "40_9", "4210_{5}", "4343_6", "52_8"}
SCRAPS = BASES | {
    "$6m$",
    "$f(x)=a x+b$, where $b$ is an arbitrary integer, and $a$ is an arbitrary positive integer with $\\mho(a)=0$",
    "-2,-2",
    "16,3,1,1",
    "\\frac{1}{3} E_{1}+\\frac{2}{3} E_{2}",
    "\\frac{1}{\\sqrt{2}}c",
    "\\frac{1}{m} t",
    "\\frac{37}{4} m",
    "\\hbar \\omega(v+1 / 2)-\\frac{E_{0}^{2} e^{2}}{2 m \\omega^{2}}",
    "m_{p} c^{2}\\left(\\gamma^{2}-1\\right) \\sin ^{2} \\theta",
}
# Truths whose own repetition is not graded correct: none, the listed ones included.
NOT_EQUAL_TO_THEMSELVES: set[str] = set()

needs_files = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"the authors' data files are not at {DATA}; set AMPO_SHARED to the folder above data/"
)


@pytest.fixture(scope="module")
def grader():
    # A generous deadline: here a busy machine must not be mistaken for a hard question.
    with Grader(MathVerify(timeout_s=120)) as made:
        yield made


@pytest.fixture(scope="module")
def check_truths(grader):
    known = {}

    def check(truths):
        new = [truth for truth in truths if truth not in known]
        known.update(zip(new, grader.check_truths(new), strict=True))
        return [known[truth] for truth in truths]

    return check


@pytest.fixture(scope="module")
def load(prompt_tokenizer, check_truths):
    def run(path, **options):
        defaults = {"max_prompt_tokens": 100_000, "overlong_prompts": "drop", "system_prompt": "keep"}
        return load_questions([path], prompt_tokenizer, check_truths=check_truths, **{**defaults, **options})

    return run


def repeated(grader, truths):
    """The truths whose repetition inside the answer tags is not graded correct."""
    grades = grader.grade([GradeRequest(f"so it is\n<answer> {truth} </answer>", truth) for truth in truths])
    assert all(grade.status == "ok" for grade in grades)
    return {truth for truth, grade in zip(truths, grades, strict=True) if not (grade.correct and grade.reward == 1.0)}


@needs_files
@pytest.mark.process
@pytest.mark.parametrize("name", FILES)
def test_file_loads_unchanged(load, name):
    rows, distinct, listed = FILES[name]
    report = load(DATA / name, distinct=True).report
    assert report.rows == report.selected == rows
    assert report.refused == ()
    assert report.questions == report.distinct == distinct
    assert report.repeats_dropped == rows - distinct
    expected = {0: set(), 6: BASES, 21: STRING_TRUTHS | SCRAPS}
    assert {found.truth for found in report.listed} == expected[listed]
    assert len(report.listed) == listed
    assert {found.truth for found in report.listed if "only as a string" in found.reason} <= STRING_TRUTHS
    assert all(found.row > 0 for found in report.listed)


@pytest.mark.process
@pytest.mark.parametrize(
    ("path", "questions", "refused"),
    [
        (SAMPLE, 65 - 1, {"np.arcsin(10/13)"}),
        pytest.param(DATA / "valid.parquet", 1560 - 5, STRING_TRUTHS, marks=[needs_files, pytest.mark.slow]),
    ],
    ids=["sample", "valid"],
)
def test_string_truths_can_be_left_out(prompt_tokenizer, path, questions, refused):
    options = {"max_prompt_tokens": 100_000, "overlong_prompts": "drop", "system_prompt": "keep", "distinct": True}
    with Grader(MathVerify(timeout_s=120, string_truths="refuse")) as strict:
        report = load_questions([path], prompt_tokenizer, check_truths=strict.check_truths, **options).report
    assert {found.truth for found in report.refused} == refused
    assert report.questions == questions
    assert not {found.truth for found in report.listed} & STRING_TRUTHS


@needs_files
@pytest.mark.process
def test_repeated_truths_are_correct(load, grader):
    questions = [question for name in FILES for question in load(DATA / name, distinct=True).questions]
    truths = sorted({question.answer for question in questions})
    assert len(truths) == 1054
    assert set(truths) >= STRING_TRUTHS | SCRAPS | NUMBERS
    assert repeated(grader, truths) == NOT_EQUAL_TO_THEMSELVES


@needs_files
@pytest.mark.process
def test_two_files_bring_another_system_prompt(load):
    prompts = {name: {q.messages[0].content for q in load(DATA / name, limit=50).questions} for name in FILES}
    assert all(len(found) == 1 for found in prompts.values())
    boxed = {name for name, found in prompts.items() if "\\boxed{}" in next(iter(found))}
    assert boxed == {"valid.math.parquet", "valid_pass_at_256.parquet", "valid_pass_at_32.parquet"}
    replaced = load(DATA / "valid_pass_at_256.parquet", system_prompt="Use <answer> </answer>.").questions
    assert {question.messages[0].content for question in replaced} == {"Use <answer> </answer>."}


@needs_files
@pytest.mark.process
def test_where_picks_a_benchmark(load):
    assert len(load(DATA / "valid.parquet", where={"data_source": "aime"}, distinct=True).questions) == 30


@pytest.mark.process
def test_sample_loads_and_its_truths_are_correct(load, grader):
    found = load(SAMPLE)
    assert found.report.rows == 65
    sources = Counter(question.source for question in found.questions)
    assert sources == {"aime": 12, "math": 12, "olympiad_bench": 12, "amc": 12, "minerva": 13, "aime25": 4}
    assert found.report.refused == ()
    assert [listed.truth for listed in found.report.listed] == ["np.arcsin(10/13)"]
    assert repeated(grader, sorted({question.answer for question in found.questions})) == set()


def test_the_page_gives_these_numbers_and_names_the_exceptions():
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    for name, (rows, distinct, listed) in FILES.items():
        assert f"| `{name}` | {rows} | {distinct} | {listed} |" in page
    assert all(f"`{truth}`" in page for truth in STRING_TRUTHS | SCRAPS | NUMBERS)


@needs_files
@pytest.mark.process
def test_the_page_quotes_the_real_report(load):
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    lines = [line.replace(str(DATA), "data") for line in load(DATA / "valid.parquet", distinct=True).report.lines()]
    assert lines[0] in page
    assert next(line for line in lines if "'np.arcsin" in line).split(", so another")[0] in page
