"""Models whose attention heads vLLM's CPU kernels know (32), and engines that several tests share: starting one takes
seconds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from ampo_plugins.rollouts.vllm.spec import NOT_INSTALLED, VllmRollout
from ampo_registry import BuildContext, RolloutEngine, RolloutRequest, SamplingOptions

needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason=NOT_INSTALLED)

PROMPTS = ((5, 9, 33), (17,), (5, 9, 33), tuple(range(40, 61)), (8, 8))


def write_model(folder: Path, tokenizer: Any, *, tied: bool) -> Path:
    """A random model of two layers in Hugging Face format: Llama with tied embeddings, or Qwen2 with its own head."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": tied,
        "initializer_range": 0.1,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    model = LlamaForCausalLM(LlamaConfig(**shape)) if tied else Qwen2ForCausalLM(Qwen2Config(**shape))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tied_model(tmp_path_factory: pytest.TempPathFactory, golden_tokenizer: Any) -> Path:
    """Folder of a random Llama with tied embeddings."""
    return write_model(tmp_path_factory.mktemp("models") / "tied", golden_tokenizer, tied=True)


@pytest.fixture(scope="session")
def untied_model(tmp_path_factory: pytest.TempPathFactory, golden_tokenizer: Any) -> Path:
    """Folder of a random Qwen2 with a head of its own."""
    return write_model(tmp_path_factory.mktemp("models") / "untied", golden_tokenizer, tied=False)


@pytest.fixture(scope="session")
def start(golden_tokenizer: Any) -> Callable[..., Any]:
    """Starts an engine: `start(folder, **options)`."""

    def build(folder: Path, **options: Any) -> RolloutEngine:
        spec = VllmRollout(kv_cache_gib=0.25, **options)
        return spec.build(BuildContext(model_path=str(folder), tokenizer=golden_tokenizer, seed=7))

    return build


@pytest.fixture(scope="module")
def engine(start: Callable[..., Any], tied_model: Path) -> Iterator[Any]:
    """An engine on the tied model. A test that loads other weights puts the first back."""
    found = start(tied_model)
    yield found
    found.close()


def sampling(temperature: float = 1.0, top_p: float = 1.0, limit: int = 12, stops: Any = ()) -> SamplingOptions:
    return SamplingOptions(temperature, top_p, limit, tuple(stops))


def requests(group: int = 3) -> list[RolloutRequest]:
    return [RolloutRequest(prompt, tuple(100 * at + i for i in range(group))) for at, prompt in enumerate(PROMPTS)]


def own_environment() -> dict[str, str]:
    """The environment of a process that a test starts: one thread, no network, repository as it is."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
