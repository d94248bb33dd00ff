"""Small runs whose policies are handed on: guided, fine-tuned, fine-tuned with LoRA, and one after another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ampo_registry.discovery import Plugins, discover
from rich.console import Console

from ampo_core.config.load import load_config
from ampo_core.jobs.table import run_job
from ampo_core.learner.learner import Learner
from ampo_core.run.environment import Environment
from tests.plugins.vllm.conftest import write_model
from tests.run.conftest import row

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}: {{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Answer' + mark }}{% endif %}"
)
OPTIONS = {"mark": ":"}
STOP = "<|endoftext|>"


@dataclass(frozen=True)
class Handed:
    """A finished run's last policy, what was on the screen, and the learner's weights when it was written."""

    policy: Path
    screen: str
    weights: Mapping[str, torch.Tensor]

    @property
    def run(self) -> Path:
        return self.policy.parents[2]

    @property
    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load((self.run / "config.yaml").read_text("utf-8"))
        return found


@dataclass(frozen=True)
class World:
    """Runs jobs in `folder`, which has data, a chat template and two start models with heads of 32."""

    folder: Path
    plugins: Plugins

    def job(self, name: str, document: Mapping[str, Any]) -> tuple[Path, str]:
        """The job's output and what it printed."""
        path = self.folder / f"{name}.yaml"
        run = {"name": name, "dir": str(self.folder / "runs"), "seed": 3}
        path.write_text(yaml.safe_dump({**document, "run": run, "resources": {"threads": 1}}), encoding="utf-8")
        loaded, screen = load_config(path, (), self.plugins), StringIO()
        output = run_job(loaded.job, Environment.of(loaded, self.plugins, console=Console(file=screen, width=200)))
        assert output is not None
        return output, screen.getvalue()

    def train(self, name: str, document: Mapping[str, Any]) -> Handed:
        """A train or sft job, with the learner's weights at its last checkpoint."""
        found: dict[str, torch.Tensor] = {}
        save = Learner.save_policy

        def recorded(learner: Learner, folder: Path, tokenizer: Any) -> None:
            found.update({key: value.clone() for key, value in learner.weights()})
            save(learner, folder, tokenizer)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Learner, "save_policy", recorded)
            policy, screen = self.job(name, document)
        return Handed(policy, screen, found)

    def model(self, path: Path, **options: Any) -> dict[str, Any]:
        return {"path": str(path), "dtype": "float32", "gradient_checkpointing": False, **options}

    def document(self, job: str, model: Mapping[str, Any], **blocks: Any) -> dict[str, Any]:
        """A train or sft config of two steps."""
        shared = {"job": job, "model": dict(model), "deepspeed": {"zero_stage": 0}, "tracking": []}
        data = [str(self.folder / "questions.jsonl")]
        if job == "sft":
            training = {"epochs": 1, "batch": 15, "accumulation": 1, "learning_rate": 1e-3}
            return {**shared, "data": {"train": data, "format": "pool"}, "training": training, **blocks}
        training = {
            "steps": 2,
            "questions_per_batch": 4,
            "questions_per_minibatch": 2,
            "tokens_per_microbatch": 512,
            "learning_rate": 1e-3,
        }
        return {
            **shared,
            "data": {"train": data, "max_prompt_tokens": 64},
            "rollout": {"type": "transformers", "group_size": 3, "max_response_tokens": 10},
            "reward": {"type": "math_verify", "workers": 1},
            "training": training,
            "checkpoint": {"every": 1, "best": None},
            **blocks,
        }


@pytest.fixture(scope="session")
def handing(tmp_path_factory: pytest.TempPathFactory, golden_tokenizer: Any) -> World:
    folder = tmp_path_factory.mktemp("handing")
    (folder / "questions.jsonl").write_text("".join(json.dumps(row(number)) + "\n" for number in range(10)))
    (folder / "template.jinja").write_text(TEMPLATE)
    write_model(folder / "tied", golden_tokenizer, tied=True)
    write_model(folder / "untied", golden_tokenizer, tied=False)
    return World(folder, discover())


@pytest.fixture(scope="session")
def guided(handing: World) -> Handed:
    """A guided run with a chat template, an option for it and a stop token of its own; tied embeddings."""
    template = {"chat_template": str(handing.folder / "template.jinja"), "chat_template_options": OPTIONS}
    model = handing.model(handing.folder / "tied", stop=[STOP], **template)
    sets = {"toy": {"path": str(handing.folder / "questions.jsonl"), "limit": 2, "samples": 2, "pass_at": [2]}}
    evaluation = {"every": 1, "at_start": True, "sets": sets}
    return handing.train("guided", handing.document("train", model, evaluation=evaluation))


@pytest.fixture(scope="session")
def sft(handing: World) -> Handed:
    """A fine-tuned model with a head of its own; its base's generation config has sampling options."""
    folder = handing.folder / "untied"
    path = folder / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": 2, "pad_token_id": 0, "temperature": 0.7, "top_k": 20}))
    (folder / "README.md").write_text("---\nlicense: mit\nbase_model: another/base\n---\nA card.\n")
    return handing.train("sft", handing.document("sft", handing.model(folder)))


@pytest.fixture(scope="session")
def lora(handing: World) -> Handed:
    model = handing.model(handing.folder / "tied", lora={"rank": 4, "alpha": 8})
    return handing.train("lora", handing.document("sft", model, checkpoint={"every": None}))


@pytest.fixture(scope="session")
def after_sft(handing: World, sft: Handed) -> Handed:
    """GRPO from the fine-tuned policy."""
    return handing.train("after-sft", handing.document("train", handing.model(sft.policy), guidance=None))
