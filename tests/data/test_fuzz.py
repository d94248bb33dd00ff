"""Rows and files that are wrong in any way: an error that names file and row, never a traceback."""

import copy
import io
import json
import re
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ampo_registry.errors import ConfigError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ampo_core.config.layouts import LAYOUTS, Layout
from ampo_core.config.sft_job import SftDataConfig
from ampo_core.data.layouts import RowReader
from ampo_core.data.questions import load_questions
from ampo_core.data.rows import read_rows
from ampo_core.jobs.sft_data import load_examples

ROW = {
    "data_source": "math",
    "prompt": [{"role": "system", "content": "tag it"}, {"role": "user", "content": "x + y"}],
    "ability": "math",
    "reward_model": {"ground_truth": "7", "style": "rule"},
    "extra_info": {"index": 5},
    "target_lst": [
        {"role": "assistant", "content": "7", "source": "A", "quality_score": 0.5, "logprobs": [-0.1, -0.2]}
    ],
    "target": [{"role": "assistant", "content": "7"}],
    "messages": [{"role": "user", "content": "x + y"}, {"role": "assistant", "content": "7"}],
}
TEXTS = st.text(st.characters(), max_size=6) | st.sampled_from(["\ud800", "\x00", "<|im_end|>", "{{ x }}", "user", ""])
NUMBERS = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 1e308, 2**64])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
ODD_COLUMNS = [
    pa.array([b"\xff"], pa.binary()),
    pa.array([datetime(2020, 1, 1)], pa.timestamp("ns")),
    pa.array([10**15], pa.date64()),
    pa.array([Decimal("1.5")]),
    pa.array([[("role", "user")]], pa.map_(pa.string(), pa.string())),
    pa.array(["user"]).dictionary_encode(),
    pa.array([None]),
    pa.array([[[1.5]]]),
    pa.array([1.5], pa.float32()),
    pa.StringArray.from_buffers(1, pa.py_buffer(b"\x00\x00\x00\x00\x02\x00\x00\x00"), pa.py_buffer(b"\xff\xfe")),
]
PLACE = re.compile(
    r"rows\.(jsonl|parquet)(, (row|line) \d+|: (the file holds no row|not readable))|no question is left"
)
fuzz = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def paths(value, path=()):
    """Every place inside `value`."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, part in inner for found in paths(part, (*path, key)))]


@st.composite
def broken_rows(draw):
    """ROW with one to three places replaced or removed."""
    row = copy.deepcopy(ROW)
    for _ in range(draw(st.integers(1, 3))):
        *outer, last = draw(st.sampled_from(paths(row)[1:]))
        inner = row
        for key in outer:
            inner = inner[key]
        if draw(st.integers(0, 3)) == 0:
            del inner[last]
        else:
            inner[last] = draw(VALUES)
        if not isinstance(row, dict) or not row:
            break
    return row


@st.composite
def damaged(draw, whole: bytes):
    """`whole` with bytes changed, cut off or put in."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.integers(0, 2)):
            case 0:
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=4))
            case 1:
                del data[at : at + draw(st.integers(1, 40))]
            case _:
                del data[at:]
    return bytes(data)


@pytest.fixture
def reading(tmp_path, prompt_tokenizer):
    """What all readers make of a file: nothing, or an error that is checked to name its place."""
    options = {"max_prompt_tokens": 50, "overlong_prompts": "cut", "system_prompt": "keep", "check_truths": None}

    def read(name, content):
        file = tmp_path / name
        file.write_bytes(content)
        readers = [
            lambda: load_questions([file], prompt_tokenizer, where={"data_source": "math"}, **options),
            lambda: load_questions([file], prompt_tokenizer, **options),
            lambda: load_examples(SftDataConfig(train=[str(file)]), prompt_tokenizer),
            lambda: load_examples(SftDataConfig(train=[str(file)], format="messages"), prompt_tokenizer),
        ]
        said = []
        for reader in readers:
            try:
                reader()
            except ConfigError as error:
                said.append(str(error))
        for text in said:
            text.encode()  # it can be printed
            assert PLACE.search(text) or "nothing to train on" in text
        return said

    return read


@fuzz
@given(row=broken_rows())
def test_rows_that_are_wrong_in_any_way(reading, row):
    said = reading("rows.jsonl", "".join(json.dumps(item) + "\n" for item in (ROW, row)).encode())
    assert all("row 1" not in text for text in said)


@fuzz
@given(content=st.binary(max_size=60) | damaged(json.dumps(ROW).encode() + b"\n" + json.dumps(ROW).encode()))
def test_bytes_of_json_lines(reading, content):
    reading("rows.jsonl", content)


def test_json_that_nests_deeply(reading):
    deep = json.dumps(ROW)[:-1] + ', "x": ' + "[" * 100_000 + "]" * 100_000 + "}"
    assert all("rows.jsonl, line 2" in text for text in reading("rows.jsonl", f"{json.dumps(ROW)}\n{deep}\n".encode()))


def parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


@fuzz
@given(content=damaged(parquet(pa.Table.from_pylist([ROW, ROW]))))
def test_bytes_of_parquet(reading, content):
    reading("rows.parquet", content)


@pytest.mark.parametrize("column", ODD_COLUMNS, ids=lambda column: str(column.type))
def test_columns_of_parquet_of_odd_types(reading, column):
    whole = pa.Table.from_pylist([ROW])
    for name in whole.column_names:
        table = whole.set_column(whole.column_names.index(name), name, column)
        reading("rows.parquet", parquet(table))


COLUMNS = sorted({*ROW, *(name for layout in LAYOUTS.values() for name in (*layout.prompt, *dict(layout.answer)))})
READERS = [
    RowReader(),
    *(RowReader((layout,)) for layout in LAYOUTS.values()),
    RowReader(tuple(LAYOUTS.values()), truths=False),
    RowReader((Layout(("prompt",), (("answer", r"(x)?y*"), ("target", "boxed")), "label", "label", "answer"),)),
]


@settings(fuzz, max_examples=60)
@given(row=broken_rows() | st.dictionaries(st.sampled_from(COLUMNS) | TEXTS, VALUES, min_size=1, max_size=6))
def test_rows_of_any_layout(row):
    for reader in READERS:
        try:
            found = reader.read(row, Path("rows.jsonl"), 7)
        except ConfigError as error:
            said = str(error)
            assert said.startswith("rows.jsonl, row 7: ")
            said.encode()
        else:
            assert found.answer or found.unusable or not reader.truths or reader == RowReader()
            (found.answer + found.source + (found.unusable or "")).encode()


LIST, TABLE = b'[{"a": 1.5}, {"b": [{"c": null}]}]', b'question,answer\r\n"1,""x""",2\r\n3,\r\n'


@settings(fuzz, max_examples=60)
@given(content=st.binary(max_size=60) | damaged(LIST) | damaged(TABLE))
@pytest.mark.parametrize("ending", ["json", "csv"])
def test_bytes_of_json_and_csv(tmp_path, ending, content):
    file = tmp_path / f"rows.{ending}"
    file.write_bytes(content)
    try:
        assert all(isinstance(row, dict) for _, row in read_rows(file))
    except ConfigError as error:
        said = str(error)
        assert re.search(r"rows\.\w+(, (row|line|after row) \d+|: the header )", said)
        said.encode()
