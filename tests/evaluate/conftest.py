"""Sets on disk, an engine that answers from a table, and one rank."""

import json

import pytest
import torch
from ampo_registry import Rollout
from ampo_registry.discovery import discover

from ampo_core.config.held_out import EvaluationConfig
from ampo_core.config.tree import ModelConfig
from ampo_core.ranks import Ranks
from ampo_core.tokens import load_tokenizer


@pytest.fixture(scope="session")
def plugins():
    return discover()


@pytest.fixture(scope="session")
def prompt_tokenizer(tiny_model):
    return load_tokenizer(ModelConfig(path=str(tiny_model)))


@pytest.fixture
def one_rank():
    return Ranks(0, 1, torch.device("cpu"))


@pytest.fixture
def evaluation_config(plugins):
    def make(sets, **options):
        return EvaluationConfig.model_validate({"sets": sets, **options}, context={"catalog": plugins.catalog})

    return make


@pytest.fixture
def write_rows(tmp_path):
    def write(rows, name="set.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


def row(question, answer, source="sums", system="Put the answer in <answer> tags."):
    return {
        "data_source": source,
        "prompt": [{"role": "system", "content": system}, {"role": "user", "content": question}],
        "ability": "math",
        "reward_model": {"ground_truth": answer, "style": "rule"},
        "extra_info": {"index": 0, "split": "default"},
    }


@pytest.fixture
def make_row():
    return row


class TableEngine:
    """Answers each prompt with the next text of its list, over and over; remembers what it was asked."""

    def __init__(self, tokenizer, answers, lengths=None):
        self.tokenizer, self.answers, self.lengths = tokenizer, answers, lengths or {}
        self.requests, self.options, self.awake = [], [], False

    def generate(self, requests, options):
        assert self.awake
        self.requests += requests
        self.options.append(options)
        return [[self._rollout(request, i) for i in range(len(request.seeds))] for request in requests]

    def _rollout(self, request, sample):
        prompt = self.tokenizer.decode(request.prompt_token_ids)
        question = next(text for text in self.answers if text in prompt)
        text = self.answers[question][sample % len(self.answers[question])]
        length = self.lengths.get(question, len(text))
        finish = "length" if text.endswith("...") else "stop"
        return Rollout((1,) * length, (-0.5,) * length, text, finish, 0)

    def wake(self):
        self.awake = True

    def sleep(self):
        self.awake = False


@pytest.fixture
def table_engine(prompt_tokenizer):
    def make(answers, lengths=None):
        return TableEngine(prompt_tokenizer, answers, lengths)

    return make
