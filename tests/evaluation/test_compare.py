"""The comparison of models: pairing, readings, table."""

import json
from dataclasses import replace

import pytest
from ampo_registry import Grade, Question
from rich.console import Console

from ampo_core.evaluation.compare import compare, reading, unverified
from ampo_core.evaluation.results import Answer, Evaluation, SetResult
from ampo_core.evaluation.table import markdown, screen_readings, screen_table
from ampo_core.report.evaluation import pass_figures
from ampo_core.report.scores import MACRO, Scores


def result(name, correct, pass_at=(1,), first=0, status="ok"):
    """A set on which question i has `correct[i]` right answers of 4."""
    questions = tuple(Question(f"{name}-{first + i}", (), (), "1", name) for i in range(len(correct)))
    answers = tuple(
        tuple(Answer("x", 2, "stop", -1.2, Grade(float(i < c), i < c, True, status)) for i in range(4)) for c in correct
    )
    return SetResult(name, questions, answers, pass_at)


STRONG = Evaluation((result("easy", [4, 4, 3, 4] * 10), result("hard", [0, 1, 0, 0] * 10)))
WEAK = Evaluation((result("easy", [1, 0, 1, 1] * 10), result("hard", [1, 0, 0, 0] * 10)))


def rows(comparison):
    return {(row.model, row.set): row for row in comparison.rows}


def test_differences_are_paired_and_the_baseline_has_none():
    found = rows(compare({"weak": WEAK, "strong": STRONG}, "weak", 0))
    assert found["weak", "easy"].difference is None
    easy = found["strong", "easy"].difference
    assert easy.value == pytest.approx(15 / 16 - 3 / 16)
    assert easy.excludes_zero
    hard = found["strong", "hard"].difference
    assert hard.value == 0
    assert hard.low < 0 < hard.high
    assert found["strong", MACRO].difference.value == pytest.approx(0.75 / 2)
    assert found["strong", MACRO].average.value == pytest.approx((15 / 16 + 1 / 16) / 2)


def test_readings_say_who_is_ahead_and_whether_that_is_sure():
    readings = compare({"weak": WEAK, "strong": STRONG}, "weak", 0).readings
    assert readings[0].startswith("easy: strong is ahead of weak by 75.0 points of avg@4 (95 % interval ")
    assert readings[0].endswith("0 is outside).")
    assert readings[1].startswith("hard: strong and weak cannot be told apart: +0.0 points of avg@4 (95 % interval -")
    assert readings[2].startswith("macro: strong is ahead")
    behind = compare({"weak": WEAK, "strong": STRONG}, "strong", 0).readings
    assert behind[0].startswith("easy: strong is ahead of weak by 75.0 points")
    assert behind == [*readings[:1], *behind[1:2], *readings[2:]]


def test_the_other_models_are_read_against_each_other_too():
    comparison = compare({"start": WEAK, "one": WEAK, "two": STRONG}, "start", 0)
    readings = comparison.readings
    assert len(readings) == 9
    assert readings[6].startswith("easy: two is ahead of one by 75.0 points of avg@4")
    assert {row.model for row in comparison.rows} == {"start", "one", "two"}


def test_questions_that_only_one_model_has_are_left_out_and_said():
    ours = Evaluation((result("easy", [4, 4, 4], first=1),))
    theirs = Evaluation((result("easy", [0, 4, 4]),))
    comparison = compare({"a": theirs, "b": ours}, "a", 0)
    row = rows(comparison)["b", "easy"]
    assert (row.difference.value, row.unpaired) == (0.0, 2)
    assert "2 questions that only one of them had are left out" in comparison.readings[0]


def test_json_holds_what_the_table_shows():
    comparison = compare({"weak": WEAK, "strong": STRONG}, "weak", 0)
    document = json.loads(json.dumps(comparison.as_json(), allow_nan=False))
    easy = document["models"]["strong"]["easy"]
    assert easy["avg"]["value"] == pytest.approx(15 / 16)
    assert easy["avg"]["low"] <= easy["avg"]["value"] <= easy["avg"]["high"]
    assert easy["pass_at"]["1"]["value"] == pytest.approx(15 / 16)
    assert (easy["questions"], easy["samples"], easy["length_mean"]) == (40, 4, 2)
    assert easy["entropy"] == pytest.approx(0.6)
    assert document["readings"] == comparison.readings
    assert compare({"weak": WEAK, "strong": STRONG}, "weak", 0) == comparison


def test_table_has_a_block_a_model_and_does_not_wrap_in_a_log(tmp_path):
    path = tmp_path / "log"
    with path.open("w") as file:
        screen_table(compare({"weak": WEAK, "strong": STRONG}, "weak", 0)).show(Console(file=file, width=80))
    lines = path.read_text().splitlines()
    easy = [line for line in lines if "easy" in line]
    assert len(easy) == 2
    assert "93.8 [" in easy[1]
    assert "+75.0 [" in easy[1]
    assert "avg@4" in path.read_text()
    assert "against weak" in path.read_text()


def test_one_model_has_no_difference_and_one_set_no_macro():
    comparison = compare({"only": Evaluation((result("easy", [4, 0]),))}, "only", 0)
    assert [row.set for row in comparison.rows] == ["easy"]
    assert comparison.readings == []
    assert screen_table(comparison).head == [
        "model", "set", "questions", "samples", "avg@4", "pass@1", "length", "cut off", "entropy",
    ]  # fmt: skip


def test_responses_without_a_verdict_are_said():
    broken = Evaluation((result("easy", [0, 0], status="timeout"), result("hard", [0], status="error")))
    comparison = compare({"fine": STRONG, "broken": broken}, "fine", 0)
    assert unverified(comparison) == ["broken: 8 verifier timeouts and 4 errors count as wrong."]


MODELS = {"start": WEAK, "grpo": WEAK, "ampo": STRONG, "both": STRONG}


def grouped(evaluation):
    return Evaluation(evaluation.sets, {"one": ("hard",)})


def test_groups_are_rows_between_the_sets_and_the_macro_mean():
    comparison = compare({"weak": grouped(WEAK), "strong": grouped(STRONG)}, "weak", 0)
    assert [row.set for row in comparison.rows[:4]] == ["easy", "hard", "one", MACRO] == comparison.sets
    row = rows(comparison)["strong", "one"]
    assert row.average.value == rows(comparison)["strong", "hard"].average.value
    assert (row.questions, row.members) == (40, ("hard",))
    document = comparison.as_json()
    assert list(document["models"]["strong"]) == ["easy", "hard", "one", "macro"]
    assert document["groups"] == {"one": ["hard"]}


def test_many_models_become_rows(tmp_path):
    comparison = compare({name: grouped(found) for name, found in MODELS.items()}, "start", 0)
    table = screen_table(comparison)
    assert len(table.rows) == 4
    assert table.head == ["model", "easy avg@4", "hard avg@4", "one", "macro", "length", "cut off"]
    said = screen_readings(comparison)
    assert len(said) == 2 * 3 + 1
    assert all(line.startswith(("one:", "macro:")) for line in said[:-1])
    assert "results.json" in said[-1]


def test_the_rivals_differences_are_those_of_a_comparison_of_their_own():
    comparison = compare(MODELS, "start", 0)
    pair = [row for row in comparison.pairs if (row.model, row.against) == ("ampo", "grpo")]
    alone = compare({"grpo": WEAK, "ampo": STRONG}, "grpo", 0)
    assert [reading(row) for row in pair] == alone.readings
    assert set(alone.readings) < set(comparison.readings)


def test_results_as_markdown():
    comparison = compare({name: grouped(found) for name, found in MODELS.items()}, "start", 0)
    comparison = replace(comparison, changed={"ampo": ["after step 3: training.steps 5 → 6"]})
    text = markdown(comparison, {"ampo": ["5 steps", "made from sft: 9 steps"]}, "A note.")
    lines = text.splitlines()
    assert lines[2] == "| model | easy avg@4 | hard avg@4 | one | macro |"
    assert lines[6].startswith("| ampo † | 93.8 [")
    assert "## Points of difference to start" in lines
    assert "## easy: pass@k" in lines
    assert "- ampo: 5 steps\n  - made from sft: 9 steps\n" in text
    note = "† ampo went on with allowed changes: after step 3: training.steps 5 → 6"
    assert f"## Changed on the way\n\n- {note}\n" in text
    assert screen_table(comparison).notes == [note]
    few = compare({"weak": grouped(WEAK), "ampo": grouped(STRONG)}, "weak", 0)
    assert screen_table(few).notes == []
    few = screen_table(replace(few, changed=comparison.changed))
    assert (few.rows[0][0], few.rows[-1][0], few.notes) == ("weak", "ampo †", [note])
    assert lines[-1] == "A note."
    for table in text.split("\n\n"):
        if table.startswith("|"):
            assert len({line.count("|") for line in table.splitlines()}) == 1
    alone = markdown(compare({"only": Evaluation((result("easy", [4, 0], pass_at=()),))}, "only", 0), {}, None)
    assert "difference" not in alone
    assert "In words" not in alone


def test_greedy_answers_show_no_entropy():
    answers = ((Answer("x", 2, "stop", None, Grade(1.0, True, True)),),)
    greedy = Evaluation((SetResult("easy", (Question("u", (), (), "1", "s"),), answers, ()),))
    comparison = compare({"only": greedy}, "only", 0)
    assert comparison.as_json()["models"]["only"]["easy"]["entropy"] is None
    assert screen_table(comparison).rows[0][-1] == "–"


def test_pass_curves_are_those_of_sets_with_several_k():
    curved = Evaluation((result("easy", [1, 2, 0], (1, 2, 4)), result("hard", [0, 1, 0], (1,))))
    (figure,) = pass_figures(compare({"a": curved, "b": curved}, "a", 0))
    assert figure.title == "pass@k, easy"
    assert [trace["x"] for trace in figure.traces] == [[1, 2, 4]] * 6
    assert figure.traces[2]["y"] == [0.25, pytest.approx(0.44444), pytest.approx(0.66667)]
    assert pass_figures(compare({"a": WEAK}, "a", 0)) == []


def test_what_the_job_writes_the_report_reads(tmp_path):
    comparison = compare({"weak": grouped(WEAK), "strong": grouped(STRONG)}, "weak", 0)
    (tmp_path / "results.json").write_text(json.dumps(comparison.as_json()))
    found = Scores.read(tmp_path, "t")
    assert found.readings == comparison.readings
    assert [replace(row, against=None, members=None, unpaired=0) for row in found.rows] == [
        replace(row, against=None, members=None, unpaired=0) for row in comparison.rows
    ]
