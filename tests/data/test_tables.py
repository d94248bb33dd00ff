"""CSV and JSON: rows with their numbers, and odd and hostile files in words."""

from __future__ import annotations

import csv
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ampo_registry import DataError

from ampo_core.data import tables
from ampo_core.data.rows import read_rows


def rows(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_rows(path))


def test_csv_as_it_comes(tmp_path):
    text = '\ufeffquestion, answer,note\r\n"Say ""x"",\nplease",7,\r\n\r\n1 + 1,"1,234","  "\r\n'
    assert rows(tmp_path, "a.csv", text) == [
        (1, {"question": 'Say "x",\nplease', "answer": "7", "note": None}),
        (2, {"question": "1 + 1", "answer": "1,234", "note": "  "}),
    ]
    long = "x" * 200_000
    assert rows(tmp_path, "b.csv", f",a\n0,{long}\n") == [(1, {"": "0", "a": long})]
    assert rows(tmp_path, "c.csv", "") == rows(tmp_path, "c.csv", "a,b\n") == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b\n1,2\n1,2,3\n", "row 2 (line 3): 3 cells, and the header has 2"),
        ('a,b\n"1\n\n",2\n1\n', "row 2 (line 5): 1 cell, and the header has 2"),
        ("a,b,a\n1,2,3\n", "the header names the column 'a' more than once: a, b, a"),
        ("a;b\n1;2\n", "the header is one column, 'a;b': cells are separated by commas, not ';'"),
        ('a,b\n"1,2\n', "row 1 (line 2): not CSV: unexpected end of data"),
        ('a,b\n"1"x,2\n', "row 1 (line 2): not CSV: ',' expected after '\"'"),
        (b"a,b\n1,2\n\xff,2\n", "not UTF-8 text; save it as UTF-8"),
    ],
)
def test_csv_that_is_none(tmp_path, content, said):
    with pytest.raises(DataError, match=re.escape(said)):
        rows(tmp_path, "a.csv", content)


@pytest.mark.parametrize("characters", [1, 7, 2**20])
def test_a_list_in_json_is_read_piece_by_piece(tmp_path, monkeypatch, characters):
    monkeypatch.setattr(tables, "CHARACTERS", characters)
    found = [{"a": 1.5}, {"b": ["x]}", {"c": None}], "d": "é"}, {}]
    with_mark = "\ufeff" + json.dumps(found, ensure_ascii=False) + "\n"
    for text in (json.dumps(found), json.dumps(found, indent=1), with_mark):
        assert rows(tmp_path, "a.json", text) == list(enumerate(found, start=1))
    assert rows(tmp_path, "a.json", " [ ] ") == []
    assert rows(tmp_path, "lines.json", '{"a": 1}\n\n{"a": 2}\n') == [(1, {"a": 1}), (3, {"a": 2})]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"a": 1}, 2]', "row 2: not a JSON object: found int"),
        ('[{"a": 1}, {"a": }]', "row 2: not JSON: Expecting value"),
        ('[{"a": 1}', "row 2: not JSON: expected ',' or ']' behind the item before, found 'the end of the file'"),
        ('[{"a": 1} {"a": 1}]', "row 2: not JSON: expected ',' or ']' behind the item before, found '{'"),
        ('[{"a": 1},]', "row 2: not JSON: Expecting value"),
        ('[{"a": 1}]]', "row 2: not JSON: found ']' behind the end of the list"),
        ("[" * 100_000, "row 1: not JSON: maximum recursion depth"),
        ('{\n"data": [{"a": 1}]}', "line 1: not a JSON object: Expecting property name"),
        ("7", "line 1: not a JSON object: found int; a .json file holds a list of objects, or one object a line"),
        (b"\xff\xfe[\x00", "not UTF-8 text"),
    ],
    ids=range(10),
)
def test_json_that_is_none(tmp_path, content, said):
    with pytest.raises(DataError, match=re.escape(said)):
        rows(tmp_path, "a.json", content)


def test_a_cell_of_messages(tmp_path):
    turns = [{"role": "user", "content": "1 + 1?"}]
    texts = ["[1, 2]", '[{"role": "user"}]', '["role", "content"]', '[{"role": "user", "content": "torn"']
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["prompt"], [json.dumps(turns)], *([text] for text in texts)])
    assert [row["prompt"] for _, row in read_rows(path)] == [turns, *texts]


def test_numbers_of_32_bits_are_read_as_they_are_written(tmp_path):
    column = pa.array([0.1, None, -2.5, 1e-7], pa.float32())
    pq.write_table(pa.table({"a": column}), tmp_path / "a.parquet")
    assert [row["a"] for _, row in read_rows(tmp_path / "a.parquet")] == [0.1, None, -2.5, 1e-7]


def test_cells_of_any_length_on_any_system(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(csv, "field_size_limit", asked.append)
    (tmp_path / "a.csv").write_text("a\n1\n")
    assert [row for _, row in read_rows(tmp_path / "a.csv")] == [{"a": "1"}]
    assert asked == [2**31 - 1]
