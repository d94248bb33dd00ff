"""Sets on disk, an engine that answers from a table, and one rank."""

import json

import pytest
import torch
import yaml
from ampo_registry import Rollout
from ampo_registry.discovery import discover

from ampo_core.config.held_out import EvaluationConfig
from ampo_core.config.tree import ModelConfig
from ampo_core.data.tokens import load_tokenizer
from ampo_core.distributed.ranks import Ranks


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
        return self.said(text, self.lengths.get(question))

    def said(self, text, length=None):
        length = len(text) if length is None else length
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


@pytest.fixture
def config(tmp_path, monkeypatch, tiny_model, tiny_untied_model, write_rows, make_row):
    """The working directory, with evaluate.yaml: two random models on two sets."""
    monkeypatch.chdir(tmp_path)
    rows = [make_row(f"{i} + 1", str(i + 1), "odd" if i % 2 else "even") for i in range(6)]
    path = write_rows(rows)
    (tmp_path / "old").mkdir()
    metrics = [{"step": step, "reward/accuracy": step / 4, "eval/odd/avg@4": 0.1} for step in range(4)]
    (tmp_path / "old" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    document = {
        "job": "evaluate",
        "run": {"name": "compared", "dir": "runs", "seed": 3},
        "models": {"start": {"path": str(tiny_model)}, "other": {"path": str(tiny_untied_model)}},
        "rollout": {"type": "transformers", "max_response_tokens": 5},
        "reward": {"type": "math_verify", "workers": 1, "timeout_s": 30},
        "evaluation": {
            "temperature": 1.0,
            "sets": {
                "odd": {"path": path, "where": {"data_source": "odd"}, "samples": 4, "pass_at": [1, 4]},
                "even": {"path": path, "where": {"data_source": "even"}, "samples": 4, "pass_at": [4], "limit": 2},
            },
        },
        "comparison": {"baseline": "start", "curves": {"old": "old"}, "note": "Random models: a test."},
        "resources": {"threads": 1},
    }
    (tmp_path / "evaluate.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return tmp_path
