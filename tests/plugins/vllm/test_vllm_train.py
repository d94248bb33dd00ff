"""A whole AMPO run with the `vllm` rollout, started as a person starts it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.plugins.vllm.conftest import needs_vllm, own_environment

pytestmark = [needs_vllm, pytest.mark.process, pytest.mark.slow]

ROOT = Path(__file__).parents[3]
STEPS = 5
MODEL = {"dtype": "float32", "gradient_checkpointing": False}
REWARD = {"type": "math_verify", "workers": 1}
STAGES = {
    "prepare": {
        "job": "prepare",
        "task": {
            "type": "labelled_arithmetic",
            "questions": 40,
            "levels": {1: 0.5, 2: 0.5},
            "heldout_levels": [1],
            "heldout_per_level": 4,
            "warmup_examples": 300,
            "warmup_levels": {1: 1.0},
            "head_size": 32,
        },
        "reward": REWARD,
    },
    "warmup": {
        "job": "sft",
        "model": {"path": "${stages.prepare.out}/model", **MODEL},
        "data": {"train": ["${stages.prepare.out}/sft.parquet"], "format": "messages", "max_tokens": 128},
        "training": {
            "epochs": 8,
            "batch": 30,
            "accumulation": 1,
            "learning_rate": 5e-3,
            "tokens_per_microbatch": 2048,
        },
        "deepspeed": {"zero_stage": 0},
        "resources": {"threads": 1},
    },
    "ampo": {
        "job": "train",
        "model": {"path": "${stages.warmup.out}", **MODEL},
        "data": {"train": ["${stages.prepare.out}/train.parquet"], "max_prompt_tokens": 64},
        "rollout": {"type": "vllm", "group_size": 4, "max_response_tokens": 40, "kv_cache_gib": 0.25},
        "reward": REWARD,
        "evaluation": {
            "every": 2,
            "sets": {"level1": {"path": "${stages.prepare.out}/heldout/level1.parquet", "samples": 2, "pass_at": [2]}},
        },
        "training": {
            "steps": STEPS,
            "questions_per_batch": 6,
            "questions_per_minibatch": 3,
            "tokens_per_microbatch": 1024,
            "learning_rate": 1e-3,
        },
        "deepspeed": {"zero_stage": 0},
        "resources": {"threads": 1},
    },
}
INTERVENTIONS = {
    "prefix": {"type": "prefix", "share": 0.4},
    "hint": {"type": "hint", "template": "{question}{hint}"},
}
for name, intervention in INTERVENTIONS.items():
    STAGES[name] = {
        **STAGES["ampo"],
        "guidance": {"trigger": "always", "intervention": intervention},
        "evaluation": None,
        "training": {**STAGES["ampo"]["training"], "steps": 2},
    }


def test_an_ampo_run_of_five_steps_samples_from_the_policy_it_trains(tmp_path):
    for name, config in STAGES.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**config, "run": {"seed": 3}}), encoding="utf-8")
    pipeline = {
        "job": "pipeline",
        "run": {"name": "world", "dir": str(tmp_path / "runs")},
        "stages": [{"name": name, "config": f"{name}.yaml"} for name in STAGES],
    }
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(pipeline), encoding="utf-8")
    found = subprocess.run(
        [sys.executable, "-m", "ampo_core.cli.main", str(tmp_path / "pipeline.yaml")],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=ROOT,
        env=own_environment(),
    )
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-4000:]
    folder = tmp_path / "runs" / "world" / "ampo"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [line["step"] for line in lines] == list(range(STEPS + 1))
    # the policy moves at every step, and the sampler with it: a sync that had missed something would show
    assert all(line["policy/rollout_logprob_gap"] < 1e-4 for line in lines[1:])
    assert any(line["policy/grad_norm"] > 0 for line in lines[1:])
    assert any(line["guidance/triggered"] > 0 for line in lines[1:])
    assert all(line["tokens/generated"] > 0 for line in lines[1:])
    assert {"eval/level1/avg@2"} <= set(lines[0])
    assert (folder / "checkpoints" / f"step-{STEPS:06}" / "policy" / "model.safetensors").exists()
    for name in INTERVENTIONS:
        text = (tmp_path / "runs" / "world" / name / "metrics.jsonl").read_text("utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        assert [line["step"] for line in lines] == [1, 2]
        assert all(line["guidance/generated"] > 0 for line in lines)
        assert all(line["policy/rollout_logprob_gap"] < 1e-4 for line in lines)
