"""The GPU measurement as far as a CPU can tell: its arithmetic, its inputs, its page, and that a bad part is a row."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tomllib
from argparse import Namespace
from pathlib import Path
from typing import Any

import entrypoints
import pytest
from ampo_plugins.rewards.math_verify import MathVerify
from ampo_registry import GradeRequest
from ampo_registry.discovery import discover

from ampo_core.config.jobs import TrainJob
from ampo_core.config.load import load_config
from tests.report.conftest import until

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def test_operations_are_those_of_the_shape():
    from gpu.world import FULL, update_flops

    # Qwen2.5-1.5B: 1.54 G parameters, of which 1.31 G are not the embedding
    assert FULL.body_parameters == pytest.approx(1.31e9, rel=0.01)
    assert FULL.body_parameters + FULL.head_parameters == pytest.approx(1.54e9, rel=0.01)
    alone = update_flops(FULL, [(100, 900)])
    assert update_flops(FULL, [(100, 900)] * 3) == 3 * alone
    attention = alone - 6 * (FULL.body_parameters * 1000 + FULL.head_parameters * 900)
    assert attention == 6 * 28 * 1536 * 1000**2


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H20", 148e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40", None),
        ("Something else", None),
    ],
)
def test_only_known_devices_have_a_peak(name, peak):
    from gpu.device import peak_flops

    assert peak_flops(name) == peak


@pytest.mark.process
def test_the_driver_is_asked_for_names_and_for_memory_meanwhile(tmp_path, monkeypatch):
    from gpu.device import ask_driver, facts, watched

    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        '#!/bin/sh\ncase "$*" in *name*) echo "NVIDIA H100 80GB HBM3, 81559, 580.1";; *) echo 4321;; esac\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert ask_driver("memory.used") == ["4321"]
    found = facts(cuda=True)
    assert (found["device"], found["driver"]) == ("NVIDIA H100 80GB HBM3, 80 GiB", "580.1")
    with watched(True, every_s=0.01) as peak:
        until(lambda: peak.mib is not None)
    assert peak.mib == 4321


def test_a_machine_without_the_drivers_tool_is_unknown(tmp_path, monkeypatch):
    from gpu.device import facts, watched

    monkeypatch.setenv("PATH", str(tmp_path))
    assert facts(cuda=True)["device"] == "unknown"
    with watched(True, every_s=0.01) as peak:
        time.sleep(0.05)
    assert peak.mib is None


def test_the_tokenizer_fills_the_vocabulary(tmp_path):
    from gpu.world import REHEARSAL, write_model
    from transformers import AutoConfig, AutoTokenizer

    parameters = write_model(tmp_path / "model", REHEARSAL, "cpu")
    assert parameters > REHEARSAL.body_parameters + REHEARSAL.head_parameters
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert len(tokenizer) == REHEARSAL.vocabulary == AutoConfig.from_pretrained(tmp_path / "model").vocab_size
    assert tokenizer.decode([REHEARSAL.vocabulary - 1]) == f"filler{REHEARSAL.vocabulary - 1}"


def test_every_teacher_answers_every_question_right(tmp_path):
    from gpu.world import write_questions

    write_questions(tmp_path / "questions.jsonl", 8)
    rows = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text("utf-8").splitlines()]
    requests = [
        GradeRequest(answer["content"], row["reward_model"]["ground_truth"])
        for row in rows
        for answer in row["target_lst"]
    ]
    assert len(requests) == 8 * 4
    assert all(grade.correct and grade.formatted for grade in MathVerify().grade(requests))


@pytest.mark.parametrize("rollout", ["vllm", "transformers"])
def test_the_config_is_a_train_job_at_full_size(rollout, tmp_path):
    from gpu.world import FULL, train_config

    path = tmp_path / "train.yaml"
    path.write_text(json.dumps(train_config(FULL, tmp_path, rollout)), "utf-8")
    job = load_config(path, (), discover()).job
    assert isinstance(job, TrainJob)
    assert job.guidance is not None
    assert (job.model.dtype, job.deepspeed.zero_stage) == ("bfloat16", 2)
    assert (job.rollout.group_size, job.rollout.max_response_tokens, job.training.steps) == (8, 1024, 3)


def test_the_tree_is_found_without_an_installation(tmp_path):
    from gpu.distribution import write_metadata

    write_metadata(tmp_path)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    ((points, distribution),) = entrypoints.iter_files_distros([str(tmp_path)])
    assert (distribution.name.replace("_", "-"), distribution.version) == (project["name"], project["version"])
    assert dict(points["ampo"]) == project["entry-points"]["ampo"]


def test_the_page_keeps_its_text_and_says_what_failed():
    from gpu.report import PAGE, Result, page

    results = [
        Result("model", [("model", "1 M parameters")], took=3.2, peak_mib=2048),
        Result("train", [("step 1", "1.0 s")], "exit code 1: ValueError: a | b", 9.8, log=["Traceback", "ValueError"]),
    ]
    text = page({"device": "none"}, "2026-01-01 00:00 UTC", results)
    before = PAGE.read_text("utf-8").partition("## Measured\n")[0]
    assert text.startswith(before)
    assert "not been run" not in text
    assert "| model | 1 M parameters |" in text
    assert "| **part `train` failed** | exit code 1: ValueError: a \\| b |" in text
    assert "| peak memory of the device, model / train | 2.0 GiB / unknown |" in text
    assert "```text\nTraceback\nValueError\n```" in text


@pytest.mark.process
def test_a_part_that_takes_too_long_is_ended(tmp_path):
    from gpu_check import run_part

    arguments = Namespace(out=tmp_path / "gpu.md", device="cpu", rollout="transformers")
    result = run_part("model", 0.05, arguments, tmp_path)
    assert result.failure == "took longer than 0 s"
    assert result.rows == []


def test_a_reason_is_what_the_log_said_last():
    from gpu_check import _reason

    assert _reason(["x", "torch.OutOfMemoryError: CUDA out of memory", "bye"]).startswith("torch.OutOfMemoryError")
    assert _reason(["ampo-run: error", "no such file", "RuntimeError: exit code 2"]) == "ampo-run: error no such file"
    assert _reason(["Killed"]) == "Killed"
    assert _reason([]) == "it printed nothing"


@pytest.mark.slow
def test_a_rehearsal_goes_through(tmp_path):
    command = [ROOT / "benchmarks" / "gpu_check.sh", "--device", "cpu", "--rollout", "transformers"]
    environment = {"PYTHON": sys.executable, "OUT": str(tmp_path), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "gpu.md").read_text("utf-8")
    assert "AMPO step 3" in text
    assert "100% of the groups guided" in text
    assert "failed" not in text.partition("## Measured")[2]
