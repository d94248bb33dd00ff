"""Fixtures that several areas share. Nothing here touches the network."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Any]]:
    """Reads tests/golden/NAME.json: `{what, ...shared inputs, cases: [...]}`."""
    return lambda name: json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))


@pytest.fixture(scope="session")
def golden_tokenizer() -> Any:
    """The tokenizer of the golden files: byte-level, with a Qwen-like chat template."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(GOLDEN / "tokenizer")


def write_tiny_model(folder: Path, tokenizer: Any, *, tied: bool, seed: int = 0) -> Path:
    """A random two-layer Qwen2 with `tokenizer`, in Hugging Face format."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        initializer_range=0.2,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, golden_tokenizer: Any) -> Path:
    """Folder of a random Qwen2 with tied embeddings: 2 layers, hidden 32."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tied", golden_tokenizer, tied=True)


@pytest.fixture(scope="session")
def tiny_untied_model(tmp_path_factory: pytest.TempPathFactory, golden_tokenizer: Any) -> Path:
    """The same with a head of its own."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "untied", golden_tokenizer, tied=False)
