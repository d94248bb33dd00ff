"""What a model card says of a run, from its config, manifest and metrics; model_card.jinja has the words."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError

from ampo_core.config.data_files import data_name
from ampo_core.report.budget import replacements
from ampo_core.report.lineage import Lineage, lineage, read_metrics
from ampo_core.report.settings import value_of
from ampo_core.run.changes import read_config, read_manifest

SETTINGS = {
    "train": (
        "rollout.group_size",
        "rollout.temperature",
        "rollout.max_response_tokens",
        "reward.type",
        "objective.scope",
        "objective.advantage.type",
        "objective.on_policy.loss",
        "objective.off_policy.loss",
        "objective.auxiliary",
        "objective.entropy_coefficient",
        "objective.kl",
        "objective.group_filter",
        "training.questions_per_batch",
        "training.questions_per_minibatch",
        "training.epochs_per_batch",
    ),
    "sft": ("data.format", "training.epochs", "training.batch", "training.accumulation", "training.warmup_ratio"),
}
OPTIMIZER = ("training.learning_rate", "training.schedule", "training.weight_decay", "training.grad_clip")
TRAINING = ("reward/mean", "reward/accuracy", "response/length_mean", "response/truncated", "policy/loss")
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""What generation_config.json may ask of whoever samples."""


@dataclass(frozen=True, slots=True)
class CardRun:
    """A run's files, read up to `step`."""

    folder: Path
    step: int
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]
    line: Lineage

    @classmethod
    def read(cls, folder: Path, step: int) -> CardRun:
        """The train or sft run in `folder`. Raises ConfigError if a file cannot be read."""
        lines = [line for line in read_metrics(folder) if line["step"] <= step]
        return cls(folder, step, read_config(folder), read_manifest(folder), lines, lineage(folder, step))

    @property
    def job(self) -> str:
        """train or sft."""
        return str(self.manifest["job"])

    def value(self, key: str) -> Any:
        """The value of a dotted key of the config; None if a block of it is null."""
        return value_of(self.config, key)

    @property
    def base_on_hub(self) -> str | None:
        """The base model's name on the Hub; None if it was read from a folder: manifests have hashes of those."""
        models = read_manifest(self.line.runs[-1][0]).get("models") or {}
        return self.line.base if self.line.base in models and models[self.line.base] is None else None

    @property
    def before(self) -> list[str]:
        """The runs that this one started from, the first one first, in words."""
        return [_earlier(folder, step) for folder, step in reversed(self.line.runs[1:])]

    def purpose(self, path: str) -> str:
        """What a data file was for."""
        sets: Mapping[str, Any] = self.value("evaluation.sets") or {}
        trained = ["training"] if path in map(data_name, self.value("data.train")) else []
        held_out = [f"evaluation {name}" for name, item in sets.items() if data_name(item["path"]) == path]
        return ", ".join([*trained, *held_out])

    @property
    def teachers(self) -> dict[str, int | None]:
        """teacher -> how many of its answers were used, None where that was not recorded; in sft of all examples."""
        if self.job == "sft":
            return dict((self.manifest.get("examples") or {}).get("teachers") or {})
        return {**dict.fromkeys(self.manifest.get("teachers") or (), 0), **replacements(self.lines)}

    @property
    def evaluated(self) -> Mapping[str, Any]:
        """The last line of metrics with an evaluation; empty if there is none."""
        return next((line for line in reversed(self.lines) if any(name.startswith("eval/") for name in line)), {})

    @property
    def measured(self) -> dict[str, Any]:
        """The metrics of the step itself that a card shows."""
        own: Mapping[str, Any] = next((line for line in self.lines if line["step"] == self.step), {})
        return {name: own[name] for name in TRAINING if name in own}

    @property
    def settings(self) -> dict[str, Any]:
        """The keys that matter most, with their values as YAML would have them on a line."""
        values = {key: self.value(key) for key in (*SETTINGS[self.job], *OPTIMIZER)}
        return {key: value if isinstance(value, str) else as_json(value) for key, value in values.items()}

    @property
    def versions(self) -> dict[str, str]:
        """package or plugin -> its version."""
        found = {**(self.manifest.get("versions") or {}), **(self.manifest.get("plugins") or {})}
        return {name: version or "not installed" for name, version in found.items()}


def messages(run: CardRun) -> str:
    """A conversation to complete, with the system prompt that the run put before each."""
    system, user = run.value("data.system_prompt"), {"role": "user", "content": "…"}
    return as_json([user] if system in ("keep", "drop") else [{"role": "system", "content": system}, user])


def serve_options(run: CardRun) -> str:
    """What vLLM must be told to answer as the run did."""
    options = run.value("model.chat_template_options")
    # of float32 weights vLLM would by itself make 16 bits
    dtype = " --dtype float32" if run.value("model.dtype") == "float32" else ""
    return dtype + (f" --default-chat-template-kwargs {shlex.quote(as_json(options))}" if options else "")


def generate_options(run: CardRun) -> str:
    """How the run sampled when it evaluated, or else when it trained; sft does not sample."""
    temperature, top_p = run.value("evaluation.temperature"), run.value("evaluation.top_p")
    if temperature is None:
        temperature, top_p = run.value("rollout.temperature"), 1.0
    if temperature is None:
        return ""
    if temperature == 0:
        return ", do_sample=False"
    return f", do_sample=True, temperature={temperature}, top_p={top_p}, top_k=0"


def sampling_defaults(policy: Path) -> str:
    """The sampling options in generation_config.json of the folder `policy`."""
    file = policy / "generation_config.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return ", ".join(f"{name} {found[name]}" for name in SAMPLING if found.get(name) is not None)


def as_json(value: object) -> str:
    """`value` (JSON types) on one line."""
    return json.dumps(value, ensure_ascii=False)


def _earlier(folder: Path, step: int | None) -> str:
    try:
        manifest = read_manifest(folder)
    except ConfigError:
        return f"the run `{folder.name}` up to step {step}; its manifest cannot be read"
    data = ", ".join(f"`{Path(path).name}`" for path in manifest.get("data") or ())
    return f"the {manifest.get('job')} run `{folder.name}` up to step {step}, on {data or 'unknown data'}"
