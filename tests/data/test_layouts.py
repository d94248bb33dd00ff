"""Rows as people have them: each layout, columns and patterns of a config's own, and what is said of other rows."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import get_args

import pytest
from ampo_plugins.rewards.exact import Exact
from ampo_plugins.rewards.math_verify import MathVerify
from ampo_registry import DataError, GradeRequest, Message
from ampo_registry.text import last_box

from ampo_core.config.data_files import HubData
from ampo_core.config.layouts import LAYOUTS, ColumnsConfig, LayoutName
from ampo_core.config.tree import Block
from ampo_core.data.layouts import RowReader, as_text, found_by
from ampo_core.data.questions import load_questions
from ampo_core.data.report import TruthCheck

FILE = Path("data/rows.jsonl")
USER = [{"role": "user", "content": "x?"}]
VERL = {"data_source": "openai/gsm8k", "prompt": USER, "ability": "math", "reward_model": {"ground_truth": "72"}}
GSM8K = {"question": "How many?", "answer": "48 / 2 = <<48/2=24>>24 clips.\n#### 72"}
FITS = {
    "verl": (VERL, "72"),
    "verl, a whole number": ({**VERL, "reward_model": {"ground_truth": 72}}, "72"),
    "verl, a list of one": ({**VERL, "reward_model": {"ground_truth": ["72"]}}, "72"),
    "gsm8k": (GSM8K, "72"),
    "gsm8k, the last one counts": ({"question": "x?", "answer": "#### 1\n####  -7.5 \n"}, "-7.5"),
    "gsm8k, separators of thousands": ({"question": "x?", "answer": "#### 1,234,567.50"}, "1234567.50"),
    "math": ({"problem": "x?", "solution": r"so $\boxed{1}$, or $\boxed{\frac{1}{2}}$", "level": "3"}, r"\frac{1}{2}"),
    "math, MATH-500": ({"problem": "x?", "solution": r"$\boxed{7}$", "answer": r"(3, \pi)"}, r"(3, \pi)"),
    "trl": ({"prompt": "x?", "answer": 72}, "72"),
    "trl, conversational": ({"prompt": USER, "solution": r"$\frac12$"}, r"$\frac12$"),
    "trl, a whole solution": ({"prompt": USER, "solution": r"Hence \boxed{8}."}, "8"),
    "trl, ground_truth": ({"prompt": USER, "ground_truth": 0.5}, "0.5"),
    "openrlhf": ({"input": "x?", "label": "72"}, "72"),
    "openrlhf, prompt": ({"prompt": "x?", "label": 72.0}, "72"),
    "openrlhf, messages": ({"messages": USER, "label": True}, "True"),
}  # fmt: skip


class Says(Block):
    layout: LayoutName | list[LayoutName] | None = None
    columns: ColumnsConfig | None = None
    answer_pattern: str | None = None


def read(row, file=FILE, **said):
    columns = ColumnsConfig(**said.pop("columns")) if "columns" in said else None
    return RowReader.of(Says(columns=columns, **said)).read(row, file, 3)


def refusal(row, **said):
    with pytest.raises(DataError) as error:
        read(row, **said)
    return str(error.value)


@pytest.mark.parametrize("name", FITS)
def test_a_layout_reads_its_rows(name):
    row, answer = FITS[name]
    found = read(row, layout=name.partition(",")[0])
    assert (found.answer, found.unusable) == (answer, None)
    assert found.messages[-1].role == "user"
    kept = {key: value for key, value in row.items() if key not in ("prompt", "reward_model", "data_source")}
    assert kept.items() <= found.raw.items(), "a person's own columns stay"
    text = isinstance(
        next(row[key] for key in ("question", "problem", "input", "prompt", "messages") if key in row), str
    )
    said = {"text_prompt": True} if text else {}
    assert found.raw["reward_model"] == {"style": "rule", "ground_truth": answer, **said}
    assert RowReader().read(found.raw, FILE, 3).answer == answer, "what is written is the contract"


def test_the_table_holds_every_layout_that_a_config_may_name():
    assert set(LAYOUTS) == set(get_args(LayoutName)) == {name.partition(",")[0] for name in FITS}


def test_nothing_said_is_the_contract_itself():
    assert RowReader.of(Says()) == RowReader()
    assert read(VERL).raw is VERL


def test_columns_and_a_pattern_of_a_configs_own():
    row = {
        "q": {"text": "x?"},
        "a": "the answer is 5. No: the answer is 42.",
        "from": "quiz",
        "kind": 3,
        "worked": "6*7",
    }
    columns = {"prompt": "q.text", "answer": "a", "source": "from", "ability": "kind", "target": "worked"}
    found = read(row, columns=columns, answer_pattern=r"answer is (\d+)")
    assert (found.answer, found.source, found.raw["ability"]) == ("42", "quiz", "3")
    assert found.messages == (Message("user", "x?"),)
    assert [(answer.teacher, answer.text) for answer in found.answers] == [("teacher", "6*7")]
    assert read(row, columns={"prompt": "q.text", "answer": "a"}, answer_pattern=r"\d+").answer == "42"


def test_a_column_comes_before_the_layouts_and_keeps_its_pattern():
    row = {"frage": "x?", "answer": "#### 8", "solution": r"\boxed{9}", "problem": "y?"}
    assert read(row, layout="gsm8k", columns={"prompt": "frage"}).answer == "8"
    assert read(row, layout="math", columns={"answer": "solution"}).answer == "9"


def test_of_several_layouts_each_row_is_read_by_the_first_whose_columns_it_has():
    several = ["verl", "gsm8k", "math"]
    found = [read(row, layout=several).answer for row in (GSM8K, VERL, FITS["math"][0])]
    assert found == ["72", "72", r"\frac{1}{2}"]
    assert "row 3: it has no column prompt; its columns: text; data.columns" in refusal({"text": "x"}, layout=several)


def test_teacher_answers_come_through_and_a_target_of_another_kind_is_a_persons_own():
    answers = [{"role": "assistant", "content": "72", "source": "A"}]
    assert [a.teacher for a in read({**GSM8K, "target_lst": answers}, layout="gsm8k").answers] == ["A"]
    countdown = {"prompt": "reach 24", "target": 24, "extra_info": "of my own", "ability": 1}
    found = read(countdown, columns={"answer": "target"})
    assert (found.answer, found.answers, found.raw["target"]) == ("24", (), 24)


def test_the_name_of_the_data():
    assert read(GSM8K, layout="gsm8k").source == "rows"
    assert (
        read(GSM8K, HubData(hub="openai/gsm8k", split="test", config="main"), layout="gsm8k").source == "openai/gsm8k"
    )
    assert read({**GSM8K, "data_source": "mine"}, layout="gsm8k").source == "mine"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (-7.0, "-7"),
        (0.5, "0.5"),
        (1e-7, "0.0000001"),
        (-0.0, "0"),
        (1e21, "1" + "0" * 21),
        (Decimal("1.50"), "1.50"),
    ],
)
def test_numbers_are_written_as_by_hand(value, text):
    assert as_text(value) == text


def test_the_last_box_with_its_braces():
    torn = r"\boxed{1} and \fbox{2} and \boxed {\text{a \} b} {c}} \boxed{torn {"
    assert found_by("boxed", torn) == r"\text{a \} b} {c}"
    assert last_box(torn) is None, "of a response only what it says last counts"
    assert last_box("none", any_form=True) is None
    for any_form in (True, False):
        rows = r"\boxed{1} \boxed{\begin{array}a\\{b}\\\end{array}}"
        assert last_box(rows, any_form=any_form) == r"\begin{array}a\\{b}\\\end{array}"
        assert last_box(r"\boxed{a\\} b", any_form=any_form) == r"a\\"
    assert found_by("boxed", r"\boxed{1,234}") == "1,234", "no pattern of a number: it may be a list"


def test_separators_of_thousands_verify_however_they_are_written():
    truth = found_by("#### (.*)", "#### 1,234")
    for reward in (MathVerify(), Exact()):
        for said, right in {"1,234": True, "1234": True, "234": False, "1,235": False}.items():
            assert reward.grade([GradeRequest(f"<answer>{said}</answer>", truth)])[0].correct is right


OF_VERL = "its columns data_source, prompt, ability, reward_model"
OF_GSM8K = "its columns question, answer"
CANNOT = {
    "no column": (
        {"text": "x"},
        {},
        "reward_model must be a mapping; found nothing (missing or null); its columns: text;",
    ),
    "gsm8k": (GSM8K, {}, f"found nothing (missing or null); {OF_GSM8K} fit layout: gsm8k"),
    "gsm8k as math": (GSM8K, {"layout": "math"}, f"it has no column problem; {OF_GSM8K} fit layout: gsm8k"),
    "trl": ({"prompt": "x?", "answer": "7"}, {}, "its columns prompt, answer fit layout: trl"),
    "whole numbers": (
        FITS["verl, a whole number"][0],
        {},
        f"reward_model.ground_truth must be text; found 72; {OF_VERL} fit layout: verl",
    ),
    "the contract": (VERL, {"layout": "gsm8k"}, f"no column question; {OF_VERL} are those of the data contract: leave"),
    "no layout": (
        {"question": "x?", "answer": "7"},
        {},
        f"{OF_GSM8K} may be read by columns: {{prompt: question, answer: answer}}",
    ),
    "a mapping": (
        {"prompt": "x?", "answer": {"a": 1}},
        {"layout": "trl"},
        "answer must be text, a number, true or fals",
    ),
    "a prompt": ({"prompt": 3, "answer": "7"}, {"layout": "trl"}, "prompt must be text or a list of {role, content}"),
    "the source": (GSM8K, {"layout": "gsm8k", "columns": {"source": "from"}}, "it has no column from"),
}


@pytest.mark.parametrize("name", CANNOT)
def test_what_is_said_of_a_row_that_cannot_be_read(name):
    row, said, text = CANNOT[name]
    told = refusal(row, **said)
    assert told.startswith("data/rows.jsonl, row 3: ")
    assert text in told


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("no mark", r"answer_pattern '####\\s*(.+)' finds nothing in it"),
        (None, "it is empty"),
        ("  ", "it is empty"),
        (float("nan"), "it is nan, no number"),
    ],
)
def test_a_row_without_a_usable_answer_is_left_out_counted_and_shown(tmp_path, prompt_tokenizer, answer, reason):
    rows = [{"question": "1 + 1?", "answer": "#### 2"}, {"question": "x?", "answer": answer}]
    path = tmp_path / "rows.jsonl"
    options = {"max_prompt_tokens": 100, "overlong_prompts": "drop", "system_prompt": "keep"}

    def load(rows, **more):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        reader = RowReader((LAYOUTS["gsm8k"],))
        check = lambda truths: [TruthCheck() for _ in truths]  # noqa: E731
        return load_questions([path], prompt_tokenizer, check_truths=check, reader=reader, **options, **more)

    report = load(rows, distinct=True).report
    assert (report.selected, report.questions, len(report.refused)) == (2, 1, 1)
    assert f"{path}, row 2: ground truth" in report.lines()[1]
    assert reason in report.lines()[1]
    assert load(rows[::-1], limit=1).questions[0].answer == "2"
    with pytest.raises(DataError, match="no question is left; its columns") as error:
        load([{**rows[1], "result": "2"}])
    assert str(error.value).count("\n") == 2


DAPO = {
    "data_source": "math_dapo",
    "prompt": [{"role": "user", "content": "Solve …"}],
    "ability": "MATH",
    "reward_model": {"ground_truth": "34", "style": "rule-lighteval/MATH_v2"},
    "extra_info": {"index": "9a9b"},
}


@pytest.mark.parametrize("style", ["rule-lighteval/MATH_v2", "model"])
def test_the_style_that_verl_gives_a_row_is_no_fault_of_a_mapped_one(style):
    row = {**DAPO, "reward_model": {**DAPO["reward_model"], "style": style}}
    for said in ({"layout": "verl"}, {"columns": {"answer": "reward_model.ground_truth"}}):
        assert read(row, **said).raw["reward_model"] == {"ground_truth": "34", "style": "rule"}
    assert refusal(row).endswith("fit layout: verl")


@pytest.mark.parametrize("blank", ["", " \n", None, []])
def test_a_blank_question_is_left_out_and_a_blank_column_passed_over(blank):
    assert read({"question": blank, "answer": "#### 4"}, layout="gsm8k").unusable == "question: it is empty"
    assert read({"input": blank, "prompt": "x?", "label": "4"}, layout="openrlhf").messages[0].content == "x?"
    both = {"problem": blank, "solution": blank, **GSM8K}
    assert read(both, layout=["math", "gsm8k"]).answer == "72", "columns of a table that other rows have"
    turns = [{"role": "user", "content": " "}]
    assert read({**VERL, "prompt": turns}).unusable == "prompt: it is empty"


FAULTS = {
    "half a pair": ({"frage": "\ud800", "a": 1}, "frage must be text in Unicode"),
    "a turn": ({"frage": [{"role": "user", "content": 3}], "a": 1}, "frage[0].content must be text; found 3"),
    "no turn": ({"frage": ["x?"], "a": 1}, "frage[0] must be {role, content}; found 'x?'"),
    "an answer": ({"frage": "x?", "a": "\ud800"}, ": a must be text in Unicode"),
    "a teacher's": ({"frage": "x?", "a": 1, "worked": "\ud800"}, "worked must be text in Unicode"),
    "a teacher": (
        {"frage": "x?", "a": 1, "worked": [{"role": "user"}]},
        "worked[0].content must be text; found nothing",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_name_the_column(name):
    row, said = FAULTS[name]
    columns = {"prompt": "frage", "answer": "a", **({"target": "worked"} if "worked" in row else {})}
    assert said in refusal(row, columns=columns)


def test_what_is_shown_of_an_answer_that_cannot_be_used():
    assert read({"prompt": "x?", "answer": float("inf")}, layout="trl").answer == "inf"
    for value in (Decimal("NaN"), Decimal("sNaN"), Decimal("-Infinity")):
        assert "no number" in read({"prompt": "x?", "answer": value}, layout="trl").unusable


def test_of_alpacas_rows_the_instruction_is_the_prompt():
    row = {"instruction": "Add.", "input": "1, 2", "output": "3"}
    assert "{prompt: instruction, answer: output}" in refusal(row)
