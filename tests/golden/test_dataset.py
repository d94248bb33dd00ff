"""Rows, prompts and teacher answers against the released dataset class.

Deliberate differences:
- a null `target_lst` crashes it; here the question simply has no teacher;
- it cuts a teacher answer that is too long, without a word and without EOS; here `answer_ids` never cuts, and the
  guidance hop leaves such an answer out and counts it;
- it leaves the single `target` without EOS and appends one later, so that `target_lst` ends with two; here each
  answer ends with exactly one;
- it orders and pads the targets; here ordering is the teacher pool's business, and nothing is padded; with
  `length_strategy: long` it puts the lowest quality first, where here the selector decides about length.
"""

import json
from pathlib import Path

import pytest
from ampo_plugins.teacher_pools.dataset import Dataset

from ampo_core.config.tree import ModelConfig
from ampo_core.data.questions import load_questions
from ampo_core.data.tokens import load_tokenizer

PAD = 0


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(ModelConfig(path=str(Path(__file__).parent / "tokenizer")))


@pytest.fixture(scope="module")
def loaded(golden, tokenizer, tmp_path_factory):
    rows = golden("dataset")["rows"]
    folder = tmp_path_factory.mktemp("dataset")
    options = {"max_prompt_tokens": 48, "overlong_prompts": "drop", "system_prompt": "keep"}
    questions = {}
    for index, (name, row) in enumerate(rows.items()):
        # A file each: all of them ask the same, and the rows of one file would share their answers.
        file = folder / f"{index}.jsonl"
        file.write_text(json.dumps(row) + "\n")
        (questions[name],) = load_questions([file], tokenizer, check_truths=None, **options).questions
    return questions


def test_every_row_loads_the_null_one_too(loaded, golden):
    assert set(loaded) == set(golden("dataset")["rows"])
    assert [case["row"] for case in golden("dataset")["cases"] if "error" in case] == ["target_lst_None"] * 2
    assert loaded["target_lst_None"].extra["target_lst"] is None


def test_prompts(loaded, tokenizer, golden):
    for case in golden("dataset")["cases"]:
        if "error" not in case:
            question = loaded[case["row"]]
            assert tokenizer.tokenizer.decode(list(question.prompt_token_ids)) == case["prompt"]
            assert len(question.prompt_token_ids) == case["n_prompt"]
            assert question.extra["extra_info"]["index"] == case["index"]


def test_teacher_answers(loaded, tokenizer, golden):
    seen = 0
    for case in golden("dataset")["cases"]:
        if case.get("tgt_input_ids") is None:
            continue
        single = case["target_source_list"] is None
        padded = [case["tgt_input_ids"]] if single else case["tgt_input_ids"]
        theirs = [ids for ids in ([token for token in row if token != PAD] for row in padded) if ids]
        question = loaded[case["row"]]
        ours = [tokenizer.answer_ids(answer.text, question.prompt_token_ids) for answer in question.answers]
        for ids in theirs:
            if case["row"] == "long_target":
                assert len(ids) == 32
                assert ours[0][:32] == ids
                assert len(ours[0]) > 32
            else:
                assert ([*ids, tokenizer.end_token_id] if single else ids) in ours
            seen += 1
        assert all(ids.count(tokenizer.end_token_id) == 1 for ids in ours)
    assert seen == 14


ORDERED = {
    "target_lst(3)": ["B", "C", "A"],
    "target_lst(tie)": ["A", "B", "C"],
    "target_lst(1)": ["A"],
    "target(R1 only)": ["teacher"],
    "no_target": [],
    "target_lst_None": [],
    "long_target": ["A"],
}


def test_the_dataset_pool_orders_by_quality(loaded, golden):
    file = golden("dataset")
    assert {name: [a.teacher for a in Dataset().answers(question)] for name, question in loaded.items()} == ORDERED
    for case in file["cases"]:
        if case["length_strategy"] != "long" and case.get("target_source_list") is not None:
            assert case["target_source_list"] == ORDERED[case["row"]]
