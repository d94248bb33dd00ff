"""What is measured: a random-weight model of Qwen2.5-1.5B's shape, questions with teacher answers, and the config."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = ROOT / "tests" / "golden" / "tokenizer"
SYSTEM = "Add the numbers step by step and put the final answer within <answer> </answer>."
DTYPE = "bfloat16"


@dataclass(frozen=True, slots=True)
class Scale:
    """Shape of the model and size of the work. `sampled_tokens` is the length of responses outside of training."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_heads: int
    vocabulary: int
    questions: int
    group: int
    response_tokens: int
    sampled_tokens: int
    steps: int
    prompt_tokens: int
    tokens_per_microbatch: int
    memory_share: float

    @property
    def body_parameters(self) -> int:
        """Weights of the matrices of all layers; norms and biases are left out."""
        size = self.hidden // self.heads
        attention = self.hidden * size * (2 * self.heads + 2 * self.key_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def head_parameters(self) -> int:
        """Weights of the LM head, which the embedding shares."""
        return self.vocabulary * self.hidden


FULL = Scale(
    layers=28,
    hidden=1536,
    intermediate=8960,
    heads=12,
    key_heads=2,
    vocabulary=151_936,
    questions=8,
    group=8,
    response_tokens=1024,
    sampled_tokens=512,
    steps=3,
    prompt_tokens=512,
    tokens_per_microbatch=16_384,
    memory_share=0.4,
)
REHEARSAL = Scale(
    layers=2,
    hidden=128,
    intermediate=256,
    heads=2,
    key_heads=1,
    vocabulary=512,
    questions=2,
    group=4,
    response_tokens=256,
    sampled_tokens=64,
    steps=3,
    prompt_tokens=512,
    tokens_per_microbatch=2048,
    memory_share=0.4,
)


def update_flops(scale: Scale, lengths: Sequence[tuple[int, int]]) -> float:
    """Floating-point operations of forward and backward over sequences of (prompt, response) tokens.

    6 a weight and token, where the LM head sees response tokens only, and causal attention (half of 12 · layers ·
    hidden · n²). What gradient checkpointing computes again is not counted, as is usual for MFU.
    """
    tokens = sum(prompt + response for prompt, response in lengths)
    dense = 6 * (scale.body_parameters * tokens + scale.head_parameters * sum(response for _, response in lengths))
    squares = sum((prompt + response) ** 2 for prompt, response in lengths)
    return float(dense + 6 * scale.layers * scale.hidden * squares)


def write_model(folder: Path, scale: Scale, device: str) -> int:
    """Write model and tokenizer in Hugging Face format, in bfloat16; returns the number of parameters.

    Raises ValueError if the tokenizer that comes back from the folder is not the one that was written.
    """
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    folder.mkdir(parents=True)
    write_tokenizer(folder, scale.vocabulary)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=scale.vocabulary,
        hidden_size=scale.hidden,
        intermediate_size=scale.intermediate,
        num_hidden_layers=scale.layers,
        num_attention_heads=scale.heads,
        num_key_value_heads=scale.key_heads,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
        eos_token_id=2,
        pad_token_id=0,
        bos_token_id=None,
    )
    with torch.device(device):
        model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    text = "37 + 5 = 42\n<answer> 42 </answer>"
    if len(tokenizer) != scale.vocabulary or tokenizer.decode(tokenizer.encode(text)) != text:
        raise ValueError(f"the tokenizer in {folder} came back as {type(tokenizer).__name__}, {len(tokenizer)} tokens")
    return sum(parameter.numel() for parameter in model.parameters())


def write_tokenizer(folder: Path, vocabulary: int) -> None:
    """The small tokenizer of the golden files, filled up to `vocabulary` tokens that no text is split into."""
    content = json.loads((TOKENIZER / "tokenizer.json").read_text("utf-8"))
    tokens: dict[str, int] = content["model"]["vocab"]
    taken = {*tokens.values(), *(token["id"] for token in content["added_tokens"])}
    tokens.update({f"filler{number}": number for number in range(vocabulary) if number not in taken})
    (folder / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(TOKENIZER / name, folder / name)


def write_questions(path: Path, count: int) -> None:
    """Sums in the data contract, each with the right answers of four teachers, from terse to wordy."""
    random = Random(0)
    rows = [_row(random.randrange(100, 1000), random.randrange(100, 1000)) for _ in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def _row(first: int, second: int) -> dict[str, Any]:
    total = first + second
    split = f"{first} + {second} = {first} + {second // 100 * 100} + {second % 100}\n"
    steps = split + f"{first} + {second // 100 * 100} = {first + second // 100 * 100}\n"
    steps += f"{first + second // 100 * 100} + {second % 100} = {total}\n"
    reasoning = {
        "terse": "",
        "brief": split,
        "steps": steps,
        "wordy": f"First the hundreds, then the rest.\n{steps}Once more, to be sure:\n{steps}Both times the same.\n",
    }
    teachers = [
        {"role": "assistant", "source": name, "content": f"{text}<answer> {total} </answer>"}
        for name, text in reasoning.items()
    ]
    return {
        "data_source": "gpu-check",
        "prompt": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"What is {first} + {second}? Say how you find it before you answer."},
        ],
        "reward_model": {"ground_truth": str(total), "style": "rule"},
        "target_lst": teachers,
    }


def train_config(scale: Scale, folder: Path, rollout: str) -> dict[str, Any]:
    """The train job: AMPO as the paper's preset has it, at the size of `scale`, with ZeRO-2 and bfloat16."""
    options: dict[str, Any] = {"type": rollout, "group_size": scale.group, "max_response_tokens": scale.response_tokens}
    if rollout == "vllm":
        options |= {"gpu_memory_utilization": scale.memory_share, "enforce_eager": True, "enable_sleep": True}
        # the gap is measured here; a limit would end the run instead
        options |= {"logprob_gap_limit": None}
    else:
        options |= {"dtype": DTYPE}
    return {
        "job": "train",
        "run": {"name": "train", "dir": str(folder / "runs")},
        "model": {"path": str(folder / "model"), "dtype": DTYPE, "gradient_checkpointing": True},
        "data": {"train": [str(folder / "questions.jsonl")], "max_prompt_tokens": scale.prompt_tokens},
        "rollout": options,
        "reward": {"type": "math_verify"},
        "training": {
            "steps": scale.steps,
            "questions_per_batch": scale.questions,
            "questions_per_minibatch": scale.questions,
            "tokens_per_microbatch": scale.tokens_per_microbatch,
        },
        "deepspeed": {"zero_stage": 2},
        "checkpoint": {"every": None, "best": None},
        "tracking": [],
    }
