"""A train job on a base model's tokens: an EOS that ends no turn, a head with more rows than tokens, few questions."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from ampo_registry.discovery import discover
from rich.console import Console

from ampo_core.config.load import load_config
from ampo_core.jobs.table import run_job
from ampo_core.run.environment import Environment

pytestmark = pytest.mark.process

ROWS = [
    {
        "data_source": "toy",
        "prompt": [{"role": "user", "content": f"3 + {i}?"}],
        "reward_model": {"ground_truth": str(3 + i), "style": "rule"},
        "target_lst": [
            {"role": "assistant", "source": "t", "content": f"so <answer>{3 + i}</answer><|im_end|>\n"},
            {"role": "assistant", "source": "u", "content": f"<|im_start|> <answer>{3 + i}</answer>"},
        ],
    }
    for i in range(2)
]
CONFIG = {
    "job": "train",
    "model": {"path": "base", "dtype": "float32", "gradient_checkpointing": False},
    "data": {"train": ["train.jsonl"], "max_prompt_tokens": 32},
    "rollout": {"type": "transformers", "group_size": 2, "max_response_tokens": 40},
    "reward": {"type": "math_verify", "workers": 1},
    "evaluation": {"at_start": False, "every": None, "sets": {"held": {"path": "train.jsonl"}}},
    "training": {
        "steps": 2,
        "questions_per_batch": 4,
        "questions_per_minibatch": 4,
        "tokens_per_microbatch": 256,
    },
    "deepspeed": {"zero_stage": 0},
    "tracking": [],
    "resources": {"threads": 1},
}


def write_base(folder: Path, tokenizer: Any) -> None:
    """A random model with 40 rows beyond the tokenizer's, whose EOS ends documents and whose template turns."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer) + 40,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
        eos_token_id=0,
        bos_token_id=None,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token": "<|endoftext|>"}))


def test_what_is_odd_is_said_counted_and_handed_on(tmp_path, monkeypatch, golden_tokenizer):
    monkeypatch.chdir(tmp_path)
    write_base(tmp_path / "base", golden_tokenizer)
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    Path("config.yaml").write_text(yaml.safe_dump(CONFIG))
    plugins, screen = discover(), StringIO()
    loaded = load_config("config.yaml", (), plugins)
    policy = run_job(loaded.job, Environment.of(loaded, plugins, console=Console(file=screen, width=100)))
    assert policy is not None

    notes = json.loads(Path("runs/run/manifest.json").read_text())["notes"]
    said = [
        "closes an assistant's turn with <|im_end|>, but the tokenizer's EOS is <|endoftext|>",
        "answers with the text of a control token inside: 2 (<|im_start|>)",
        "data.train: 2 different questions, fewer than training.questions_per_batch 4",
        "evaluation.sets.held: 2 of 2 questions occur in data.train",
        "data.train: reward math_verify pays for <answer>…</answer>",
        "evaluation.sets.held: reward math_verify pays for <answer>…</answer>",
    ]
    assert [text in note for text, note in zip(said, notes, strict=True)] == [True] * 6
    assert all(f"warning: {note}" in screen.getvalue() for note in notes)

    lines = [json.loads(line) for line in Path("runs/run/metrics.jsonl").read_text().splitlines()]
    assert all(line["response/unknown_tokens"] > 0 for line in lines)
    assert screen.getvalue().count("sampled tokens are none of the tokenizer's") == 1
    assert json.loads((policy / "generation_config.json").read_text())["eos_token_id"] == [0, 2]
    box = re.search(
        r'<div class="warning"[^>]*><strong>Warned of at the start.*?</div>', Path("runs/run/report.html").read_text()
    )
    assert box is not None
    assert "closes an assistant" in box[0]
