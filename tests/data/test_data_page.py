"""docs/data.md: its example row loads, its error and its counts are the real ones."""

import json
import re
from pathlib import Path

import pytest
from ampo_registry import DataError

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
