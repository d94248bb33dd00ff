"""The blocks of data: layouts, data sets of the Hub, keys of other projects, and what is missing here."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from ampo_registry.errors import ConfigError

from ampo_core.config.data_files import HubData, data_name
from ampo_core.config.moved import THEIRS

HUB = "{hub: openai/gsm8k, split: train, config: main}"


def refused(load, text="", *overrides):
    with pytest.raises(ConfigError) as error:
        load(text, *overrides)
    return str(error.value)


def test_a_set_has_the_layout_of_data_or_one_of_its_own(load):
    sets = "a: {path: train.parquet}, b: {path: train.parquet, layout: math}, c: {path: train.parquet, where: {x: 1}}"
    loaded = load(f"data: {{layout: gsm8k, columns: {{prompt: q}}}}\nevaluation: {{sets: {{{sets}}}}}\n")
    train, a, b, c = (read for _, read in loaded.reads)
    assert [read.layout.layout for read in (train, a, b, c)] == ["gsm8k", "gsm8k", "math", "gsm8k"]
    assert a.layout.columns.prompt == "q"
    assert (b.layout.columns, c.where) == (None, {"x": 1})


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "data.layout=gsmk8",
            'data.layout: found "gsmk8", expected one of verl, gsm8k, math, trl, openrlhf or a list',
        ),
        ("data.layout=[gsm8k, meth]", 'data.layout.1: found "meth", expected one of verl, gsm8k, math, trl, openrlhf;'),
        ("data={layout: [gsm8k, trl], columns: {prompt: q}}", "data.columns: with several layouts there is nothing"),
        ("data.columns={promt: q}", "data.columns.promt: no such key; did you mean prompt?"),
        ("data.answer_pattern='#### (.*'", "data.answer_pattern: not a regular expression: missing )"),
        ("data.answer_pattern='(a)(b)'", "data.answer_pattern: 2 groups, and the answer is one; write (?:…)"),
        ("data={layout: math, columns: {answer: end}}", "columns.answer: with another column than layout math's, say"),
        ("data.train=[{hub: a/b}]", "data.train.0.split: missing; expected text"),
        ("data.train=[{hub: a/b, split: train, confg: main}]", "data.train.0.confg: no such key; did you mean config?"),
        (
            "evaluation.sets={a: {hub: a/b, split: test}}",
            "here that is path: {hub: NAME, config: CONFIG, split: SPLIT}",
        ),
    ],
    ids=range(10),
)
def test_what_is_refused(load, override, said):
    assert said in refused(load, "", override)


def test_keys_of_other_projects_are_answered_with_where_they_live_here(load):
    keys = "".join(f"  {key}: x\n" for key in THEIRS)
    said = refused(load, f"data:\n{keys}", *(f"{key}=x" for key in THEIRS)).splitlines()
    for number, (key, place) in enumerate(THEIRS.items(), start=3):
        assert f"c.yaml:{number}: data.{key}: no such key; here that is {place}" in said
        assert f"command line: {key}: no such key; here that is {place}" in said


def test_no_key_of_ours_is_among_those_of_others(load):
    data = load().data
    assert not THEIRS.keys() & (data.keys() | data["data"].keys())


def test_a_data_set_of_the_hub(load, folder, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "datasets"))
    loaded = load("", f"data.train=[{HUB}]")
    text = "data.train.0.hub: there is no folder openai/gsm8k, nor is it in the cache of the package datasets"
    assert [text in blocker for blocker in loaded.blockers] == [True]
    (_, read), *_ = loaded.reads
    assert str(read.file) == data_name(loaded.data["data"]["train"][0]) == "openai/gsm8k (main, train)"
    assert str(HubData(hub="a/b", split="test", revision="1f")) == "a/b@1f (test)"

    monkeypatch.delenv("HF_HUB_OFFLINE")
    loaded = load("", f"data.train=[{HUB}]")
    assert loaded.blockers == ()
    assert "openai/gsm8k is not on this machine; a run would download it from the Hub" in loaded.warnings[0]
    table = Path("datasets/openai___gsm8k/main/0.0.0/1f/gsm8k-train.arrow")
    table.parent.mkdir(parents=True)
    table.touch()
    assert load("", f"data.train=[{HUB}]").warnings == ()


def test_a_folder_that_is_not_there_and_the_package_that_is_not_installed(load, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "ampo_core.config.ready.find_spec", lambda name: None if name == "datasets" else find_spec(name)
    )
    blockers = load("", "data.train=[{hub: ./gone, split: train}]").blockers
    assert "data.train.0: the package datasets is not installed: pip install 'ampo-rl[data]'" in blockers[0]
    assert "data.train.0.hub: there is no folder ./gone" in blockers[1]


def test_what_nothing_reads(load):
    text = "job: sft\nmodel: {path: model}\ndata: {train: [train.parquet], format: messages, layout: trl}\n"
    assert any("data.layout: with format: messages rows are conv" in warning for warning in load(text).warnings)
