"""The two cases: a student, questions and a reward each, and the configuration that AMPO gets."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
QUESTIONS, GROUP = 16, 8


@dataclass(frozen=True, slots=True)
class Case:
    """`questions` is a JSONL file in the data contract; `reward` a component of AMPO."""

    name: str
    model: Path
    questions: Path
    reward: dict[str, Any]
    max_response_tokens: int
    target: float
    ampo_microbatch: int
    trl_microbatch: int


def quickstart_world(work: Path) -> Path:
    """A run of the quickstart's first two stages: questions with teachers' answers, and the student warmed up."""
    run = work / "world"
    if not (run / "warmup" / "done").exists():
        stages = [
            {"name": name, "config": str(ROOT / f"configs/quickstart/{name}.yaml")} for name in ("prepare", "warmup")
        ]
        config = work / "world.yaml"
        config.write_text(
            yaml.safe_dump({"job": "pipeline", "run": {"name": "world", "dir": str(work)}, "stages": stages}),
            encoding="utf-8",
        )
        print("warming the student up (two minutes, once) ...", flush=True)
        subprocess.run([sys.executable, "-m", "ampo_core.cli.main", str(config)], check=True)
    return run


def quickstart_case(work: Path, quickstart: Path | None) -> Case:
    """The quickstart's task after its warm-up: answers of very different lengths.

    `quickstart` is the folder of a finished run of it (`runs/quickstart`); without it its first two stages are run.
    """
    run = quickstart or quickstart_world(work)
    (model,) = (run / "warmup" / "checkpoints").glob("*/policy")
    questions = work / "quickstart.jsonl"
    _questions_of(run / "prepare" / "out" / "train.parquet", questions)
    return Case(
        name="quickstart",
        model=model.resolve(),
        questions=questions,
        reward={"type": "math_verify", "workers": 2},
        max_response_tokens=112,
        target=0.4,
        ampo_microbatch=2048,
        trl_microbatch=128,
    )


def _questions_of(parquet: Path, out: Path) -> None:
    import pyarrow.parquet as pq

    keys = ("data_source", "prompt", "reward_model")
    rows = pq.read_table(parquet, columns=list(keys)).to_pylist()
    out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def fixed_case(work: Path) -> Case:
    """Random weights, 0.84 M parameters, every completion 64 tokens: the model gives its EOS the probability 0.

    All prompts have as many tokens, so that nobody pads anything.
    """
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    folder = work / "fixed"
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "tests/golden/tokenizer")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():  # all tokens share a direction, and the EOS alone points the other way, a long way
        embeddings = model.get_input_embeddings().weight
        embeddings[:, 0] = 0.2
        embeddings[tokenizer.eos_token_id] = 0.0
        embeddings[tokenizer.eos_token_id, 0] = -100.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    questions = work / "fixed.jsonl"
    _equally_long_questions(AutoTokenizer.from_pretrained(folder), questions, count=1600)
    return Case(
        name="fixed",
        model=folder.resolve(),
        questions=questions,
        reward={"type": "vowel_share", "workers": 2},
        max_response_tokens=64,
        target=0.8,
        ampo_microbatch=2048,
        trl_microbatch=128,
    )


def _equally_long_questions(tokenizer: Any, out: Path, count: int) -> None:
    rng = random.Random(0)
    length, lines = 0, []
    while len(lines) < count:
        prompt = [{"role": "user", "content": f"{rng.randrange(10**5, 10**6)}+{rng.randrange(10**5, 10**6)}"}]
        ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
        length = length or len(ids)
        if len(ids) == length:
            row = {"data_source": "random", "prompt": prompt, "reward_model": {"ground_truth": "0", "style": "rule"}}
            lines.append(json.dumps(row) + "\n")
    out.write_text("".join(lines), encoding="utf-8")


def ampo_config(case: Case, rollout: str, work: Path, *, steps: int, threads: int) -> Path:
    """GRPO as TRL is configured: one optimizer step a batch, token-mean loss over the batch, no entropy term, no KL."""
    name = f"{case.name}-{rollout}"
    job = {
        "job": "train",
        "run": {"name": name, "dir": str(work / "runs")},
        "model": {"path": str(case.model), "dtype": "float32", "gradient_checkpointing": False},
        "data": {"train": [str(case.questions)], "max_prompt_tokens": 128, "shuffle": False},
        "rollout": {
            "type": rollout,
            "group_size": GROUP,
            "temperature": 1.0,
            "max_response_tokens": case.max_response_tokens,
        },
        "reward": case.reward,
        "guidance": None,
        "objective": {
            "scope": "batch",
            "advantage": {"type": "group_normalized", "ddof": 1, "eps": 1.0e-4},
            "entropy_coefficient": 0.0,
        },
        "training": {
            "steps": steps,
            "questions_per_batch": QUESTIONS,
            "questions_per_minibatch": QUESTIONS,
            "tokens_per_microbatch": case.ampo_microbatch,
            "learning_rate": 2.0e-4,
            "betas": [0.9, 0.95],
            "weight_decay": 0.0,
        },
        "deepspeed": {"zero_stage": 0},
        "checkpoint": {"every": None, "best": None},
        "resources": {"devices": 1, "threads": threads},
        "tracking": [],
    }
    path = work / f"{name}.yaml"
    path.write_text(yaml.safe_dump(job, sort_keys=False), encoding="utf-8")
    return path


def trl_case(case: Case, work: Path, *, steps: int, threads: int) -> Path:
    """The same for the TRL worker."""
    settings = {
        "model": str(case.model),
        "questions_file": str(case.questions),
        "reward": case.reward["type"],
        "workers": case.reward["workers"],
        "max_response_tokens": case.max_response_tokens,
        "trl_microbatch": case.trl_microbatch,
        "questions": QUESTIONS,
        "group": GROUP,
        "steps": steps,
        "threads": threads,
        "learning_rate": 2.0e-4,
        "out": str(work / "runs" / f"{case.name}-trl"),
    }
    path = work / f"{case.name}-trl.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    return path
