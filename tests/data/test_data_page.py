"""docs/data.md: its example rows load, each in its layout, and what it says is said is the real thing."""

import json
import re
from pathlib import Path

import pytest
import yaml
from ampo_registry import DataError
from ampo_registry.errors import ConfigError

from ampo_core.config.layouts import LAYOUTS
from ampo_core.config.load import load_config
from ampo_core.config.sft_job import SftDataConfig
from ampo_core.data.layouts import RowReader
from ampo_core.data.preview import check_first_rows
from ampo_core.data.questions import load_questions

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
OPTIONS = {"max_prompt_tokens": 500, "overlong_prompts": "drop", "system_prompt": "keep"}


@pytest.fixture
def example():
    (text,) = re.findall(r"<!-- example -->\n```json\n(.*?)```", PAGE, re.S)
    return json.loads(text)


def test_example_row_loads(example, prompt_tokenizer, tmp_path):
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps(example) + "\n")
    (question,) = load_questions([file], prompt_tokenizer, check_truths=None, **OPTIONS).questions
    assert question.answer == "7"
    assert [answer.teacher for answer in question.answers] == ["teacher-a", "teacher-b"]


def test_quoted_error_is_the_real_one(example, prompt_tokenizer, tmp_path):
    file = tmp_path / "train.jsonl"
    broken = {**example, "reward_model": {"style": "rule"}}
    file.write_text(json.dumps(example) + "\n" + json.dumps(broken) + "\n")
    with pytest.raises(DataError) as raised:
        load_questions([file], prompt_tokenizer, check_truths=None, **OPTIONS)
    assert str(raised.value).replace(str(tmp_path), "data") in PAGE


def test_each_layout_has_an_example_row_that_it_reads():
    examples = dict(re.findall(r"<!-- layout: (\w+) -->\n```json\n(.*?)```", PAGE, re.S))
    assert examples.keys() == LAYOUTS.keys()
    answers = {
        name: RowReader((LAYOUTS[name],)).read(json.loads(row), Path("a.jsonl"), 1).answer
        for name, row in examples.items()
    }
    assert answers == {"gsm8k": "72", "math": r"\frac{1}{2}", "trl": "42", "verl": "42", "openrlhf": "42"}


def test_columns_of_your_own_read_the_row_below_them():
    config, row = re.findall(r"<!-- columns -->\n```\w+\n(.*?)```", PAGE, re.S)
    reader = RowReader.of(SftDataConfig.model_validate(yaml.safe_load(config)["data"]))
    found = reader.read(json.loads(row), Path("quiz.jsonl"), 1)
    assert (found.answer, found.source, found.answers[0].text) == ("42", "Quiz 1", "6 × 7 is <answer>42</answer>")
    assert "`1,234` is 1234" in PAGE


def test_what_check_says_of_the_first_config_without_its_layout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in re.findall(r"<!-- save: (\S+) -->\n```\w+\n(.*?)```", PAGE, re.S):
        Path(name).write_text(text, encoding="utf-8")
    assert check_first_rows(load_config("clips.yaml").reads) == []
    with pytest.raises(ConfigError) as error:
        check_first_rows(load_config("clips.yaml", ["data.layout=null"]).reads)
    (said,) = re.findall(r"<!-- said -->\n```text\n(.*?)\n```", PAGE, re.S)
    assert str(error.value).replace("command line:", "clips.yaml:") == said
