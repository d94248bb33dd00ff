"""The pool that reads the training rows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from ampo_plugins.teacher_pools.dataset import Dataset
from ampo_registry import DataError, Question

Golden = Callable[[str], dict[str, Any]]


def question(row: dict[str, Any]) -> Question:
    return Question("0123456789abcdef", (), (), "7", "openr1", row)


def entry(teacher: str, score: Any = None, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": f"by {teacher}", "source": teacher, "quality_score": score, **more}


def teachers(row: dict[str, Any], spec: Dataset | None = None) -> list[str]:
    return [answer.teacher for answer in (spec or Dataset()).answers(question(row))]


BOUND = {
    "target_lst(3)": ["B", "C", "A"],
    "target_lst(tie)": ["A", "B", "C"],
    "target_lst(1)": ["A"],
    "target(R1 only)": ["teacher"],
    "no_target": [],
    "target_lst_None": [],
    "long_target": ["A"],
}


def test_rows_of_the_released_loader(golden: Golden) -> None:
    """Bound: order by quality. Different: a null list crashes there and is empty here; long answers are cut there
    and given whole here (the core leaves them out); EOS and max_available_targets are no matter of the pool."""
    file = golden("dataset")
    assert file["rows"].keys() == BOUND.keys()
    for name, row in file["rows"].items():
        assert teachers(row) == BOUND[name]
        for answer in Dataset().answers(question(row)):
            assert answer.text in [target["content"] for target in row.get("target_lst") or row["target"]]
    for case in file["cases"]:
        if case["length_strategy"] == "long":
            # Lowest quality first: with teacher answers the selector decides about length, not the pool.
            continue
        if case.get("target_source_list") is not None:
            assert case["target_source_list"] == BOUND[case["row"]]


def test_missing_scores_come_last_in_row_order() -> None:
    row = {"target_lst": [entry("A"), entry("B", 0.1), entry("C", math.nan), entry("D", 0.1), entry("E", 2)]}
    assert teachers(row) == ["E", "B", "D", "A", "C"]
    scores = [answer.quality_score for answer in Dataset().answers(question(row))]
    assert scores == [2.0, 0.1, 0.1, None, None]


def test_a_composition_keeps_some_teachers() -> None:
    row = {"target_lst": [entry("A", 0.1), entry("B", 0.2), entry("C", 0.3), entry("A", 0.4)]}
    assert teachers(row, Dataset(teachers=("A", "C"))) == ["A", "C", "A"]
    assert teachers({"target_lst": [entry("B")]}, Dataset(teachers=("A",))) == []


def test_a_single_teacher_row_may_name_its_teacher() -> None:
    target = {"role": "assistant", "content": "x"}
    assert teachers({"target": [target]}) == ["teacher"]
    assert teachers({"target": [{**target, "source": "R1"}], "target_lst": None}) == ["R1"]
    assert teachers({"target": [target], "target_lst": []}) == []


def test_recorded_log_probs_travel_with_the_answer() -> None:
    row = {"target_lst": [entry("A", logprobs=[-0.5, -1]), entry("B", logprobs=None)]}
    assert [answer.logprobs for answer in Dataset().answers(question(row))] == [(-0.5, -1.0), None]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"target_lst": "text"}, "target_lst must be a list"),
        ({"target_lst": [3]}, r"target_lst\[0\] must be"),
        ({"target_lst": [entry("A"), {"role": "assistant", "source": "B"}]}, r"target_lst\[1\].content .* nothing"),
        ({"target_lst": [{"role": "assistant", "content": "x"}]}, r"target_lst\[0\].source"),
        ({"target_lst": [entry("A", "high")]}, r"quality_score must be a number or null; found 'high'"),
        ({"target_lst": [entry("A", True)]}, r"quality_score"),
        ({"target_lst": [entry("A", role="user")]}, r"role must be assistant; found 'user'"),
        ({"target_lst": [entry("A", logprobs=[-1.0, math.nan])]}, r"logprobs must be finite"),
        ({"target_lst": [entry("A", logprobs="x")]}, r"logprobs must be a list"),
        ({"target_lst": [{"content": "x", "source": "A"}]}, "role must be assistant; found nothing"),
        ({"target": {"content": "x"}}, r"target must be a list"),
    ],
)
def test_a_malformed_entry_names_its_row(row: dict[str, Any], message: str) -> None:
    bad = question({**row, "extra_info": {"index": 5}})
    for read in (Dataset().answers, lambda one: Dataset().check_questions([one])):
        with pytest.raises(DataError, match=message) as error:
            read(bad)
        assert "0123456789ab" in str(error.value)
        assert "openr1" in str(error.value)
        assert "index 5" in str(error.value)


def test_a_teacher_that_no_row_has_is_found_before_training() -> None:
    questions = [question({"target_lst": [entry("Qwen3-8B")]}), question({})]
    Dataset(teachers=("Qwen3-8B",)).check_questions(questions)
    with pytest.raises(DataError, match="'Qwen3-8b'; found Qwen3-8B; did you mean 'Qwen3-8B'"):
        Dataset(teachers=("Qwen3-8B", "Qwen3-8b")).check_questions(questions)
    Dataset().check_questions([question({})])


def test_an_empty_filter_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Dataset(teachers=())


def test_rows_read_back_from_parquet(tmp_path: Any) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"target_lst": [entry("A", 0.5), entry("B", 0.9)]}, {"target_lst": None}, {"target_lst": []}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    read = pq.read_table(tmp_path / "train.parquet").to_pylist()
    assert [teachers(row) for row in read] == [["B", "A"], [], []]
    assert json.loads(json.dumps(read)) == read
