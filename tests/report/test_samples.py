"""A few rows of files that may be very large."""

import json

import pytest
from ampo_registry import ConfigError

from ampo_core.report.samples import LONGEST_TEXT, read_predictions, read_samples

from .conftest import TEACHERS, write_evaluation, write_lines


def test_whole_steps_from_the_last_to_the_first(run):
    samples = read_samples(run / "samples.jsonl", most=40)
    assert samples.total == 320
    assert len(samples.rows) == 40
    steps = list(dict.fromkeys(row["step"] for row in samples.rows))
    assert (steps[0], steps[-1], len(steps)) == (40, 1, 5)
    assert len(read_samples(run / "samples.jsonl", most=3).rows) == 3


def test_all_scores_of_teachers_are_kept(run):
    samples = read_samples(run / "samples.jsonl", most=8)
    assert {name: len(found) for name, found in samples.scores.items()} == dict.fromkeys(TEACHERS, 40)
    assert samples.scores["chain"][0] == (1, 0.5)


def test_a_row_says_who_wrote_it_and_how_much_was_cut(tmp_path):
    line = {
        "step": 1,
        "prompt": "1+1?",
        "answer": "2",
        "reward": 1.0,
        "source": "teacher",
        "teacher": "t",
        "score": None,
    }
    write_lines(tmp_path / "s.jsonl", [{**line, "text": "x" * (LONGEST_TEXT + 7)}, {**line, "text": "", "read": "<q>"}])
    row, other = read_samples(tmp_path / "s.jsonl").rows
    assert (row["read"], other["read"]) == (None, "<q>")
    assert (row["who"], row["teacher"], row["cut"], len(row["text"])) == ("t", True, 7, LONGEST_TEXT)


def test_a_line_that_is_being_written_is_left_out_and_a_bad_one_is_named(run):
    path = run / "samples.jsonl"
    with path.open("a") as file:
        file.write('{"step": 41, "te')
    assert read_samples(path).total == 320
    with path.open("a") as file:
        file.write("\n")
    with pytest.raises(ConfigError, match=r"samples\.jsonl, line 321: not a sample"):
        read_samples(path)


def test_a_prediction_is_right_if_it_is_correct_whatever_its_reward(tmp_path):
    line = {"model": "m", "set": "s", "prompt": "1+1?", "answer": "2", "text": "2"}
    grades = [{"correct": True, "reward": -0.5}, {"correct": False, "reward": 0.5}]
    write_lines(tmp_path / "p.jsonl", [{**line, **grade} for grade in grades])
    rows = read_predictions(tmp_path / "p.jsonl")
    assert [(row["correct"], row["reward"], row["question"]) for row in rows] == [
        (True, -0.5, "1+1?"),
        (False, 0.5, "1+1?"),
    ]


def test_predictions_are_spread_over_the_file(tmp_path):
    path = write_evaluation(tmp_path / "e", {"start": 0.1, "ampo": 0.5}) / "predictions.jsonl"
    rows = read_predictions(path, most=20)
    assert len(rows) == 20
    assert {(row["who"], row["place"]) for row in rows} == {(m, s) for m in ("start", "ampo") for s in ("easy", "hard")}
    assert {row["reward"] for row in rows} <= {0.0, 1.0}
    assert len(read_predictions(path, most=5000)) == 800
    path.write_text("")
    assert read_predictions(path) == ()
    path.write_text(json.dumps({"model": "a"}) + "\n")
    with pytest.raises(ConfigError, match=r"predictions\.jsonl cannot be read"):
        read_predictions(path)


def test_a_row_says_what_the_student_was_given_and_as_what_it_is_trained(tmp_path):
    line = {
        "step": 1,
        "prompt": "1+1?",
        "answer": "2",
        "reward": 1.0,
        "source": "teacher",
        "teacher": "t",
        "score": 0.5,
    }
    mixed = {**line, "text": "one and one is 2", "segments": [[None, 3], ["on_policy", 4]], "given": 8}
    write_lines(tmp_path / "s.jsonl", [{**line, "text": "2"}, mixed])
    plain, found = read_samples(tmp_path / "s.jsonl").rows
    assert (plain["given"], plain["trained"]) == (0, "")
    assert (found["given"], found["trained"]) == (8, "context 3 · on_policy 4")
