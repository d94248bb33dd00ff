"""A world that trains in seconds: sums of two small numbers, three teachers, and a model that often gets them right."""

from __future__ import annotations

import atexit
import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

PAD, END, SYSTEM, USER, ASSISTANT = "<pad>", "<end>", "<system>", "<user>", "<assistant>"
OPEN, CLOSE = "<answer>", "</answer>"
DIGITS = "0123"
CHAT_TEMPLATE = (
    "{%- for message in messages -%}{{ '<' + message['role'] + '>' + message['content'] + '<end>' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<assistant>' }}{%- endif -%}"
)
POSITIONS = 1024
SPREAD = 0.02
"""Probability that a token is followed by one that has no place there, over all of them."""


@dataclass(frozen=True, slots=True)
class TinyWorld:
    """`model` is a Hugging Face folder with tokenizer and chat template; `train` and `heldout` are files in the data
    contract, whose rows have answers of the teachers `terse`, `wordy` and `wrong`."""

    model: Path
    train: Path
    heldout: Path


@cache
def tiny_world() -> TinyWorld:
    """The world, made once in a process, in a folder that goes with it."""
    from ampo_core.jobs.libraries import settle_libraries

    settle_libraries()
    folder = temporary_folder("world")
    write_tiny_model(folder / "model")
    sums = [(a, b) for a in range(4) for b in range(4 - a)]
    for name, rows in {
        "train": [_row(a, b, "+") for a, b in sums],
        "heldout": [_row(3, b, "-") for b in (0, 1)],
    }.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return TinyWorld(folder / "model", folder / "train.jsonl", folder / "heldout.jsonl")


def temporary_folder(name: str) -> Path:
    """A folder that is removed when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix=f"ampo-{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _row(a: int, b: int, sign: str) -> dict[str, Any]:
    answer = a + b if sign == "+" else a - b
    texts = {
        "terse": f"{OPEN}{answer}{CLOSE}",
        "wordy": f"{a} and {b} make {answer}. {OPEN}{answer}{CLOSE}",
        "wrong": f"{OPEN}{answer + 1}{CLOSE}",
    }
    return {
        "data_source": "tiny",
        "prompt": [{"role": "user", "content": f"{a} {sign} {b} = ?"}],
        "reward_model": {"ground_truth": str(answer), "style": "rule"},
        "target_lst": [{"role": "assistant", "source": name, "content": text} for name, text in texts.items()],
    }


def write_tiny_model(folder: Path) -> None:
    """A Llama that knows of each token which ones may follow it, and nothing more: one response in five is right.

    Embeddings are unit vectors and both layers add nothing at first, so the head alone holds the transitions. All
    weights are trained as those of any model.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer()
    size = len(tokenizer)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=size,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.lm_head.weight.copy_(transitions(tokenizer).log().T / math.sqrt(size))
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def transitions(tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """[from, to]: the probability that a token follows another."""
    import torch

    vocabulary: Mapping[str, int] = tokenizer.get_vocab()
    likely: dict[str, dict[str, float]] = {
        ASSISTANT: {"a": 0.3, "b": 0.2, OPEN: 0.5},
        "a": {"b": 0.4, OPEN: 0.5, END: 0.1},
        "b": {"a": 0.4, OPEN: 0.5, END: 0.1},
        OPEN: dict.fromkeys(DIGITS, 1 / len(DIGITS)),
        **{digit: {CLOSE: 1.0} for digit in DIGITS},
        CLOSE: {END: 1.0},
    }
    table = torch.full((len(vocabulary), len(vocabulary)), 1 / len(vocabulary))
    for token, following in likely.items():
        table[vocabulary[token]] *= SPREAD
        for other, probability in following.items():
            table[vocabulary[token], vocabulary[other]] += (1 - SPREAD) * probability
    return table


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each byte and for each of the tags, so that any text goes there and back."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([PAD, END, SYSTEM, USER, ASSISTANT])
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in (OPEN, CLOSE)])
    fast: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
