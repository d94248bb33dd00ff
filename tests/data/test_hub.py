"""Data sets of the Hub, by the real package: a folder in the Hub's layout, and a cached one, without a network."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ampo_registry import DataError

from ampo_core.config.data_files import DataRead, HubData, _kept_as, cached_tables, is_here
from ampo_core.config.nodes import Place
from ampo_core.config.sft_job import SftDataConfig
from ampo_core.data.hub import first_rows
from ampo_core.data.layouts import RowReader
from ampo_core.data.preview import check_first_rows
from ampo_core.data.rows import count_rows, file_hash, read_rows
from ampo_core.run.manifest import build_manifest

README = """---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train-*.parquet}
  - {split: test, path: main/test.parquet}
- config_name: small
  data_files: main/test.parquet
---
# Sums
"""
ROWS = [{"question": f"{i} + {i}?", "answer": f"so\n#### {2 * i}"} for i in range(5)]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where the package keeps what it has loaded; it says so when it is imported."""
    import datasets

    old, datasets.config.HF_DATASETS_CACHE = datasets.config.HF_DATASETS_CACHE, tmp_path_factory.mktemp("datasets")
    yield Path(datasets.config.HF_DATASETS_CACHE)
    datasets.config.HF_DATASETS_CACHE = old


@pytest.fixture
def sums(tmp_path, monkeypatch, home):
    """A folder in the Hub's layout, named by a relative path, and no way to the network."""

    def refuse(*_):
        raise AssertionError("something goes to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(home))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "sums"
    (folder / "main").mkdir(parents=True)
    (tmp_path / "lines").mkdir()
    (folder / "README.md").write_text(README)
    pq.write_table(pa.Table.from_pylist(ROWS[:2]), folder / "main/train-00000-of-00002.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[2:4]), folder / "main/train-00001-of-00002.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[4:]), folder / "main/test.parquet")
    (tmp_path / "lines/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder


def test_a_folder_in_the_hubs_layout(sums):
    train = HubData(hub="sums", split="train", config="main")
    assert list(read_rows(train)) == list(enumerate(ROWS[:4], start=1))
    assert list(read_rows(train.model_copy(update={"split": "test"}), 1)) == [(1, ROWS[4])]
    assert [row for _, row in read_rows(HubData(hub=str(sums), split="train[1:3]", config="main"))] == ROWS[1:3]
    assert [row for _, row in read_rows(HubData(hub="./lines", split="train"))] == ROWS
    assert count_rows(train) == 4


def test_a_manifest_tells_changed_rows_and_not_where_they_stand(sums):
    train = HubData(hub="sums", split="train", config="main")
    before = file_hash(train)
    assert build_manifest(job="train", seed=0, plugins={}, data=[train])["data"] == {
        "sums (main, train)": {"sha256": before, "rows": 4}
    }
    shutil.copytree("sums", "elsewhere")
    assert file_hash(HubData(hub="elsewhere", split="train", config="main")) == before
    file = sums / "main/train-00000-of-00002.parquet"
    pq.write_table(pa.Table.from_pylist([ROWS[0], ROWS[3]]), file)
    assert file_hash(train) != before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"split": "train"}, "sums (train): cannot be loaded: Config name is missing."),
        ({"split": "dev", "config": "main"}, "sums (main, dev): cannot be loaded: Unknown split \"dev\"."),
        ({"split": "train", "config": "no"}, "sums (no, train): cannot be loaded: BuilderConfig 'no' not found."),
        ({"hub": "nobody/nothing", "split": "train"}, "nobody/nothing (train): cannot be loaded: Couldn't reach"),
    ],
    ids=["no config", "split", "config", "not here"],
)  # fmt: skip
def test_what_cannot_be_loaded_says_so_in_words(sums, options, said):
    with pytest.raises(DataError) as error:
        list(read_rows(HubData(**{"hub": "sums", **options})))
    assert str(error.value).startswith(said)


def _first(data, **layout):
    config = SftDataConfig(train=[data], **layout)
    return check_first_rows([(Place("c.yaml", 3), DataRead(("data", "train", 0), data, config))])


def test_first_rows_of_a_folder_and_of_the_cache(sums, home):
    train = HubData(hub="sums", split="train", config="main")
    said = r"c.yaml:3: data.train.0: sums \(main, train\), row 1: reward_model must.*, answer fit layout: gsm8k"
    with pytest.raises(Exception, match=said):
        _first(train)
    assert _first(train, layout="gsm8k") == []
    with pytest.raises(Exception, match="Unknown split 'dev'"):
        _first(train.model_copy(update={"split": "dev"}))
    list(read_rows(train))
    shutil.rmtree("sums")  # what stays is what the package has kept, under the name of a data set
    cached = max(
        home.glob("of-folders/*/sums/main"), key=lambda path: path.stat().st_mtime_ns
    )  # other tests keep theirs
    (home / "owner___sums").mkdir()
    cached.rename(home / "owner___sums" / "main")
    data = HubData(hub="owner/sums", split="train", config="main")
    with pytest.raises(Exception, match=said.replace("sums", "owner/sums")):
        _first(data)
    assert _first(data, layout="gsm8k") == []
    assert [row for _, row in read_rows(data)] == ROWS[:4], "the package itself finds it without a network"
    assert _first(HubData(hub="owner/none", split="train")) == []


MIXED = [{"question": "a?", "answer": 1, "kind": {"a": 1}}, {"question": "b?", "answer": "two", "kind": "x"}]


def _as_cached(home, folder, name):
    """Move what the package has kept of `folder` to where it keeps the data set `name`."""
    (home / name).mkdir()
    next(home.glob(f"of-folders/*/{folder}/*")).rename(home / name / "default")
    table = next(home.glob(f"{name}/*/*/*/*.arrow"))
    table.rename(table.with_name(f"{name.rpartition('___')[2]}-train.arrow"))


def test_columns_of_several_kinds_are_read_as_the_package_reads_them(sums, home, tmp_path):
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in MIXED))
    data = HubData(hub="mixed", split="train")
    assert [row for _, row in read_rows(data)] == MIXED
    reader = RowReader.of(SftDataConfig(train=[data], columns={"prompt": "question", "answer": "answer"}))
    assert [reader.read(row, data, number).answer for number, row in read_rows(data)] == ["1", "two"]
    _as_cached(home, "mixed", "owner___mixed")
    assert list(first_rows(HubData(hub="owner/mixed", split="train"))) == MIXED


def test_a_data_set_is_loaded_once_for_all_that_is_asked_of_it(sums, monkeypatch):
    import datasets

    loads, load = [], datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: loads.append(a) or load(*a, **k))
    train = HubData(hub=str(sums), split="train", config="main")
    assert (len(list(read_rows(train))), count_rows(train), len(file_hash(train)), len(loads)) == (4, 4, 64, 1)


def test_the_cache_knows_names_with_capitals(sums, home):
    from datasets.naming import camelcase_to_snakecase

    for name in ("DAPO-Math-17k", "GSM8K", "MATHLighteval", "open_r1", "gsm8k"):
        assert _kept_as(f"Owner/{name}") == f"Owner___{camelcase_to_snakecase(name)}"
    assert _kept_as("squad") == "squad"
    list(read_rows(HubData(hub="lines", split="train")))
    _as_cached(home, "lines", "Owner___dapo-math-17k")
    data = HubData(hub="Owner/DAPO-Math-17k", split="train")
    assert is_here(data)
    assert [row for _, row in read_rows(data)] == ROWS == list(first_rows(data))


def test_of_revisions_and_configs_only_the_one_that_is_named_is_looked_at(tmp_path, monkeypatch, sums):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "kept"))
    commits = ["a" * 40, "b" * 40]
    for config, commit in [("main", commits[0]), ("main", commits[1]), ("socratic", commits[0])]:
        folder = tmp_path / "kept/o___d" / config / "0.0.0" / commit
        folder.mkdir(parents=True)
        (folder / "d-train.arrow").touch()
    data = HubData(hub="o/d", split="train", config="main", revision=commits[0])
    assert [table.parent.name for table in cached_tables(data)] == [commits[0]]
    assert cached_tables(data.model_copy(update={"config": None, "revision": None})) == []
    assert not is_here(data.model_copy(update={"revision": "c" * 40}))
    (said,) = _first(data.model_copy(update={"revision": "v1"}))
    assert said.endswith("o/d@v1 (main, train): its rows are not looked at before the run")
    folder = HubData(hub="lines", split="train", revision="abc")
    for look in (_first, lambda data: list(read_rows(data))):
        with pytest.raises(Exception, match="lines is a folder, and a folder has no revision"):
            look(folder)
