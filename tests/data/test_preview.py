"""The first rows of files, as `--check` looks at them: both ways for each kind of file, and nothing read to its end."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ampo_registry.errors import ConfigError

from ampo_core.config.data_files import DataRead
from ampo_core.config.nodes import Place
from ampo_core.config.sft_job import SftDataConfig
from ampo_core.data.preview import FIRST, check_first_rows

GSM8K = [{"question": "1 + 1?", "answer": "#### 2"}, {"question": "600 + 400?", "answer": "#### 1,000"}]
CSV = 'question,answer\n1 + 1?,#### 2\n600 + 400?,"#### 1,000"\n'
INTEGERS = [{"data_source": "s", "prompt": [{"role": "user", "content": "x?"}], "reward_model": {"ground_truth": 7}}]
TRL = [{"prompt": "x?", "answer": 7.5}]
LINES = {"gsm8k": GSM8K, "verl": INTEGERS, "trl": TRL}


@pytest.fixture
def look(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def at(name, content=None, where=None, form="questions", **said):
        if content is not None:
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        read = DataRead(("data", "train", 0), name, SftDataConfig(train=[name], **said), where or {}, form)
        return check_first_rows([(Place("c.yaml", 3), read)])

    return at


def refused(look, *arguments, **said):
    with pytest.raises(ConfigError) as error:
        look(*arguments, **said)
    return str(error.value)


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("layout", LINES)
def test_rows_are_refused_without_their_layout_and_read_with_it(look, layout):
    rows = LINES[layout]
    pq.write_table(pa.Table.from_pylist(rows), "a.parquet")
    for name, content in {"a.jsonl": lines(rows), "a.json": json.dumps(rows), "a.parquet": None}.items():
        said = refused(look, name, content)
        assert said.startswith(f"c.yaml:3: data.train.0: {name}, row 1: ")
        assert said.endswith(f"its columns {', '.join(rows[0])} fit layout: {layout}")
        assert look(name, layout=layout) == []


def test_csv_both_ways(look):
    assert refused(look, "a.csv", CSV).endswith("its columns question, answer fit layout: gsm8k")
    assert look("a.csv", layout="gsm8k") == []
    assert "row 2 (line 3): 3 cells" in refused(
        look, "a.csv", "question,answer\n1,#### 2\n1,#### 2,3\n", layout="gsm8k"
    )


def test_rows_that_would_be_left_out(look):
    rows = [{"question": "x?", "answer": "none"}, *GSM8K]
    (said,) = look("a.jsonl", lines(rows), layout="gsm8k")
    assert said.startswith("c.yaml:3: data.train.0: 1 of the first 3 rows would be left out; the first of them:\n")
    assert "a.jsonl, row 1: ground truth 'none' refused: answer: answer_pattern" in said
    assert "no question is left" in refused(look, "a.jsonl", lines(rows[:1]), layout="gsm8k")


def test_only_selected_rows_are_looked_at(look):
    rows = lines([{"level": 1}, {"level": 2, **GSM8K[0]}])
    assert look("a.jsonl", rows, {"level": 2}, layout="gsm8k") == []
    assert "row 1: where: no column leve; found level" in refused(look, "a.jsonl", rows, {"leve": 2}, layout="gsm8k")


def test_conversations(look):
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    assert look("a.jsonl", lines([{"messages": turns}]), form="messages") == []
    assert "a.jsonl, row 1: messages must be a list" in refused(look, "a.jsonl", lines(GSM8K), form="messages")


def test_examples_need_no_ground_truth(look):
    rows = lines([{"instruction": "x?", "output": "y"}])
    columns = {"prompt": "instruction", "target": "output"}
    assert look("a.jsonl", rows, form="examples", columns=columns) == []
    assert "a.jsonl, row 1: it has no column reward_model.ground_truth" in refused(look, "a.jsonl", columns=columns)


def test_what_is_not_read(look):
    assert look("${stages.prepare.out}/train.parquet") == []
    assert look("not/there.parquet") == [], "which is said elsewhere"
    assert "the file holds no row" in refused(look, "a.jsonl", "\n")
    assert "a data file ends in .parquet, .jsonl, .json or .csv, not in '.xlsx'" in refused(look, "a.xlsx", "")
    rest = [lines(GSM8K * FIRST), "{torn"]
    assert look("long.jsonl", "".join(rest), layout="gsm8k") == [], "what stands behind the first rows"
    assert look("long.json", json.dumps(GSM8K * 20_000)[:-1], layout="gsm8k") == []


def test_a_condition_that_selects_nothing(look):
    rows = lines([{**row, "level": level} for level, row in enumerate(GSM8K, start=1)])
    said = refused(look, "a.jsonl", rows, {"level": "1"}, layout="gsm8k")
    assert said.endswith("no question is left; where: {'level': '1'}; a.jsonl has level: 1, 2")
    assert look("a.jsonl", rows * FIRST, {"level": "1"}, layout="gsm8k") == [], (
        "behind the first rows there may be some"
    )


def test_files_are_refused_together(look, tmp_path):
    (tmp_path / "b.jsonl").write_text(lines([{**GSM8K[0], "level": 2}]))
    (tmp_path / "a.jsonl").write_text(lines([{**GSM8K[0], "level": 1}]))
    config = SftDataConfig(train=["a.jsonl", "b.jsonl"], layout="gsm8k")

    def look_at(level):
        reads = [DataRead(("data", "train", i), name, config, {"level": level}) for i, name in enumerate(config.train)]
        return check_first_rows([(Place("c.yaml", 3), read) for read in reads])

    (said,) = look_at(2)
    assert "data.train.0: no question is left" in said
    with pytest.raises(ConfigError, match=r"data\.train\.1: no question is left"):
        look_at(3)


def test_rows_without_a_usable_answer_say_what_would_read_them(look):
    said = refused(look, "a.jsonl", lines([{"question": "x?", "answer": "7"}]), layout="gsm8k")
    columns = "{prompt: question, answer: answer}"
    assert f"no question is left; its columns question, answer may be read by columns: {columns}\n" in said
    (said,) = look("a.jsonl", lines([{"question": "x?", "answer": "7"}] * (FIRST + 1)), layout="gsm8k")
    assert f"none of the first 64 rows is left; its columns question, answer may be read by columns: {columns}" in said
