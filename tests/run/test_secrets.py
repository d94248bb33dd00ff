"""Code of a model and tokens of services stay where they belong, in runs of the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

SECRETS = {
    "HF_TOKEN": "hf_0123456789secret",
    "HUGGING_FACE_HUB_TOKEN": "hf_abcdefsecret",
    "WANDB_API_KEY": "f" * 34 + "secret",
    "OPENAI_API_KEY": "sk-0123456789secret",
    "AWS_SECRET_ACCESS_KEY": "aws/0123456789secret",
    "TEACHER_KEY": "teacher-0123456789secret",
}


def holding(folder: Path, secrets: dict[str, str]) -> list[str]:
    return [
        f"{path.relative_to(folder)} holds {name}"
        for path in folder.rglob("*")
        if path.is_file()
        for name, secret in secrets.items()
        if secret.encode() in path.read_bytes()
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_no_secret_of_the_environment_reaches_the_run_folder_or_the_screen(configs, forge, tmp_path, fails):
    """Also not where the run ends in an error."""
    overrides = [
        "training.steps=1",
        f"run.dir={tmp_path / 'runs'}",
        "run.name=kept",
        *(["model.dtype=float16"] * fails),
    ]
    done = forge.run(configs / "train.yaml", "guidance.selector=random", *overrides, environment=SECRETS)
    assert done.returncode == (2 if fails else 0), done.stderr
    assert not [name for name, secret in SECRETS.items() if secret in done.stdout + done.stderr]
    if not fails:
        assert (tmp_path / "runs/kept/report.html").exists()
    assert not holding(tmp_path, SECRETS)


@pytest.fixture
def model_with_code(tiny_model, tmp_path) -> Path:
    """A model whose folder brings code, which leaves a file beside it when it runs."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
        "from transformers import Qwen2Config, Qwen2ForCausalLM\n"
        "class Config(Qwen2Config):\n    model_type = 'own'\n"
        "class Model(Qwen2ForCausalLM):\n    config_class = Config\n"
    )
    return folder


@pytest.mark.parametrize("job", ["train", "sft"])
def test_a_models_code_runs_only_if_the_command_line_allows_it(configs, forge, tmp_path, model_with_code, job):
    short = {"train": ["training.steps=1", "guidance=null"], "sft": ["training.epochs=1", "model.lora=null"]}[job]
    command = [configs / f"{job}.yaml", f"model.path={model_with_code}", f"run.dir={tmp_path / 'runs'}", *short]
    modules = {"HF_MODULES_CACHE": str(tmp_path / "modules")}
    refused = forge.run(*command, environment=modules)
    assert refused.returncode == 2, refused.stderr
    assert "it brings code of its own" in refused.stderr
    assert "--trust-remote-code" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "ran").exists()
    allowed = forge.run(*command, "--trust-remote-code", environment=modules)
    assert allowed.returncode == 0, allowed.stderr
    assert (tmp_path / "ran").exists()
