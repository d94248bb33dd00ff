"""What a model card says of a run, from its config, manifest and metrics."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError

from ampo_core.config.yaml_source import dump_yaml
from ampo_core.report.budget import replacements
from ampo_core.report.lineage import Lineage, lineage, read_config, read_metrics
from ampo_core.run.changes import read_manifest

SETTINGS = {
    "train": (
        "rollout.group_size",
        "rollout.temperature",
        "rollout.max_response_tokens",
        "reward.type",
        "objective.scope",
        "objective.advantage.type",
        "objective.on_policy.clip",
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

    @property
    def base_on_hub(self) -> str | None:
        """The base model's name on the Hub; None if it was read from a folder: manifests have hashes of those."""
        models = read_manifest(self.line.runs[-1][0]).get("models") or {}
        return self.line.base if self.line.base in models and models[self.line.base] is None else None

    def value(self, key: str) -> Any:
        """The value of a dotted key of the config; None if a block of it is null."""
        found: Any = self.config
        for name in key.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        return found


def identity(run: CardRun) -> dict[str, Any]:
    """What the model is, and what it was made of."""
    release = (run.manifest.get("versions") or {}).get("ampo") or "(version unknown)"
    steps = run.value("training.steps")
    if run.base_on_hub is not None:
        origin = " on the Hugging Face Hub"
    else:
        origin = ", a folder" if run.line.complete else ", a checkpoint of a run that is not there any more"
    return {
        "name": run.value("run.name"),
        "summary": f"A model trained by the {run.job} run `{run.value('run.name')}` of AMPO {release}.",
        "base": run.line.base,
        "origin_of_base": origin,
        "before": [_earlier(folder, last) for folder, last in reversed(run.line.runs[1:])],
        "algorithm": _algorithm(run),
        "weights": _weights(run),
        "step": f"{run.step} of {steps}" if steps is not None else run.step,
        "seed": run.manifest.get("seed", "unknown"),
        "data": [(path, _purpose(run, path), file) for path, file in (run.manifest.get("data") or {}).items()],
        **_teachers(run),
    }


def scores(run: CardRun) -> dict[str, Any]:
    """The last evaluation up to this step, and the metrics of the step itself."""
    evaluations = [line for line in run.lines if any(name.startswith("eval/") for name in line)]
    last: Mapping[str, Any] = evaluations[-1] if evaluations else {}
    own: Mapping[str, Any] = next((line for line in run.lines if line["step"] == run.step), {})
    sampled = f"temperature {run.value('evaluation.temperature')}, top-p {run.value('evaluation.top_p')}"
    return {
        "evaluation": {name: _number(value) for name, value in last.items() if name.startswith("eval/")},
        "evaluated": f"The run's own evaluation after step {last.get('step')} ({sampled})",
        "training": {name: _number(own[name]) for name in TRAINING if name in own},
    }


def usage(run: CardRun, policy: Path) -> dict[str, Any]:
    """How to sample from the model as the run did, and what to beware of."""
    options: Mapping[str, Any] = run.value("model.chat_template_options") or {}
    system = run.value("data.system_prompt")
    turns = [{"role": "user", "content": "…"}]
    beware = []
    if system == "keep":
        beware.append("Prompts kept the system prompts of the data, where it has any: use the same ones.")
    else:
        turns.insert(0, {"role": "system", "content": system})
    inherited = _sampling_defaults(policy)
    if inherited:
        beware.append(f"That file also has the base model's sampling options ({inherited}), which many tools apply.")
    # of float32 weights vLLM would by itself make 16 bits
    serve = ["--dtype float32"] if run.value("model.dtype") == "float32" else []
    if options:
        serve.append(f"--default-chat-template-kwargs {shlex.quote(json.dumps(options, ensure_ascii=False))}")
    if run.job == "train":
        purpose = "Trained to answer questions like those of the data, whose final answer a rule can check "
        purpose += f"(reward: {run.value('reward.type')})."
    else:
        purpose = "Trained to imitate the answers of the data, be they right or wrong."
    return {
        "messages": json.dumps(turns, ensure_ascii=False),
        "template_options": "".join(f", {name}={value!r}" for name, value in options.items()),
        "serve_options": "".join(f" {option}" for option in serve),
        "max_tokens": run.value("rollout.max_response_tokens") or run.value("data.max_tokens"),
        "generate_options": _generate_options(run),
        "beware": beware,
        "purpose": purpose,
    }


def settings(run: CardRun) -> dict[str, Any]:
    """The values of the keys that matter most."""
    return {key: _shown(run.value(key)) for key in (*SETTINGS[run.job], *OPTIMIZER)}


def history(run: CardRun) -> dict[str, Any]:
    """Versions, the resolved config, and the steps after which the run went on with others."""
    config = dump_yaml(run.config).rstrip()
    stems = [path.name.removeprefix("config.step-") for path in (run.folder / "history").glob("config.step-*.yaml")]
    after = sorted({int(stem.partition(".")[0]) for stem in stems})
    versions: Mapping[str, str | None] = {
        **(run.manifest.get("versions") or {}),
        **(run.manifest.get("plugins") or {}),
    }
    fence = max((len(found) for found in re.findall("`+", config)), default=0) + 1
    return {
        "versions": {name: version or "not installed" for name, version in versions.items()},
        "changed": ", ".join(f"step {step}" for step in after if step <= run.step),
        "config": config,
        "fence": "`" * max(3, fence),
    }


def _earlier(folder: Path, step: int | None) -> str:
    """A run that this one started from, in words."""
    try:
        manifest = read_manifest(folder)
    except ConfigError:
        return f"the run `{folder.name}` up to step {step}; its manifest cannot be read"
    data = ", ".join(f"`{Path(path).name}`" for path in manifest.get("data") or ())
    return f"the {manifest.get('job')} run `{folder.name}` up to step {step}, on {data or 'unknown data'}"


def _algorithm(run: CardRun) -> str:
    if run.job == "sft":
        return "SFT: supervised fine-tuning on the answers"
    if run.value("guidance") is None:
        return "GRPO, without guidance"
    trigger, selector, pool = (
        f"{part.replace('_', ' ')} `{run.value(f'guidance.{part}.type')}`"
        for part in ("trigger", "selector", "teacher_pool")
    )
    return (
        f"AMPO: GRPO with guidance by teachers ({trigger}, {selector}, {pool}, at most "
        f"k0 = {run.value('guidance.replacements')} replacements in a group, threshold "
        f"{run.value('guidance.threshold')})"
    )


def _weights(run: CardRun) -> str:
    lora, dtype = run.value("model.lora"), run.value("model.dtype")
    if lora is None:
        return f"all were trained, {dtype}"
    return f"LoRA of rank {lora['rank']}, alpha {lora['alpha']}, merged into the base model's weights here, {dtype}"


def _purpose(run: CardRun, path: str) -> str:
    sets: Mapping[str, Any] = run.value("evaluation.sets") or {}
    evaluated = [name for name, item in sets.items() if item["path"] == path]
    trained = ["training"] if path in run.value("data.train") else []
    return ", ".join([*trained, *(f"evaluation {name}" for name in evaluated)])


def _teachers(run: CardRun) -> dict[str, Any]:
    """The teachers' names, and how many answers of each were used: None where that was not recorded."""
    if run.job == "sft":
        known = (run.manifest.get("examples") or {}).get("teachers") or {}
        unknown = "Unknown: the data are conversations that do not say who wrote the answers."
        return {"teachers": known, "counted": "examples", "no_teachers": unknown}
    counts = {**dict.fromkeys(run.manifest.get("teachers") or (), 0), **replacements(run.lines)}
    return {"teachers": counts, "counted": "answers put in up to this step", "no_teachers": "None."}


def _sampling_defaults(policy: Path) -> str:
    file = policy / "generation_config.json"
    if not file.is_file():
        return ""
    found = json.loads(file.read_text(encoding="utf-8"))
    return ", ".join(f"{name} {found[name]}" for name in SAMPLING if found.get(name) is not None)


def _generate_options(run: CardRun) -> str:
    """How the run sampled when it evaluated, or else when it trained; sft does not sample."""
    temperature, top_p = run.value("evaluation.temperature"), run.value("evaluation.top_p")
    if temperature is None:
        temperature, top_p = run.value("rollout.temperature"), 1.0
    if temperature is None:
        return ""
    if temperature == 0:
        return ", do_sample=False"
    return f", do_sample=True, temperature={temperature}, top_p={top_p}, top_k=0"


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _shown(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) or value is None else value
