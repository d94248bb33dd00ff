"""Every component that is installed passes the conformance kit of its kind; later ones are covered as they come."""

import sys
from pathlib import Path
from typing import Any

import pytest
from ampo_registry import BuildContext, ComponentSpec, GradeRequest, PluginFunction
from ampo_registry import testing as kit
from ampo_registry.catalog import CatalogEntry
from ampo_registry.discovery import discover

sys.path.insert(0, str(Path(__file__).parent))  # the function of a reward
PLUGINS = discover()
OPTIONS: dict[str, dict[str, Any]] = {
    "judge transformers": {"path": "model"},
    "judge vllm": {"path": "model"},
    "judge endpoint": {"url": "http://127.0.0.1:8000"},
    "function": {"function": PluginFunction("reward_functions", "gsm8k_score"), "style": "verl"},
    "regex": {"pattern": "#### (.*)", "example": "so #### 7"},
    "task reasoning_gym": {"datasets": ({"name": "chain_sum"},), "questions": 12, "heldout": 3},
    "labelled_arithmetic": {"questions": 60, "heldout_per_level": 8, "warmup_examples": 80},
    "linear": {"start": 1.0, "end": 0.05},
    "cosine": {"start": 1.0, "end": 0.05},
    "piecewise": {"start": 1.0, "at": [[3, 0.5], [10, 0.0]]},
    "sum": {"parts": [{"reward": "math_verify"}]},
}
EXPECTATIONS: dict[str, dict[str, Any]] = {
    "token": {"total": 1.0},
    "seq": {"total": 1.0},
    "constant": {"total": lambda totals: totals.tokens / totals.max_response_tokens},
    "function": {"right": [GradeRequest("#### 7", "7")], "wrong": [GradeRequest("#### 8", "7")]},
    "task reasoning_gym": {"teacher_answers": False},
    "choice": {"truth": "B", "wrong": "C"},
    "sum": {"truth": "42", "wrong": "41"},
}


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> BuildContext:
    """A random Qwen2 of a few thousand parameters with a tokenizer of 32 words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("tiny_model")
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(32)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", eos_token="w31", pad_token="w30")
    config = Qwen2Config(
        vocab_size=32,
        hidden_size=64,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,  # of 32: the smallest that vLLM knows on a CPU
        num_key_value_heads=1,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return BuildContext(model_path=str(folder), tokenizer=tokenizer)


def _spec(entry: CatalogEntry) -> ComponentSpec:
    return entry.spec.model_validate(OPTIONS.get(f"{entry.kind} {entry.name}", OPTIONS.get(entry.name, {})))


def _check_rollout(spec: Any, context: BuildContext) -> None:
    from safetensors.torch import load_file

    weights = load_file(Path(str(context.model_path)) / "model.safetensors")
    kit.check_rollout(spec, context, weights=list(weights.items()))


def _check(entry: CatalogEntry, spec: Any, tiny_model: BuildContext, folder: Path) -> None:
    expected = EXPECTATIONS.get(f"{entry.kind} {entry.name}", EXPECTATIONS.get(entry.name, {}))
    if entry.kind == "rollout":
        _check_rollout(spec, tiny_model)
    elif entry.kind == "tracker":
        kit.check_tracker(spec, folder)
    elif entry.kind == "task":
        kit.check_task(spec, folder, **expected)
    elif entry.kind == "judge":
        kit.check_judge(spec, spec_only=True)
    else:
        getattr(kit, f"check_{entry.kind}")(spec, **expected)


def test_nothing_that_is_installed_is_broken() -> None:
    assert PLUGINS.broken == ()


def test_every_kind_has_a_component() -> None:
    assert [kind for kind in PLUGINS.catalog.kinds() if not PLUGINS.catalog.names(kind)] == []


def _entries() -> list[Any]:
    return [
        pytest.param(
            entry,
            id=f"{entry.kind}-{entry.name}",
            marks=[pytest.mark.process] if (entry.kind, entry.name) == ("rollout", "vllm") else [],
        )
        for entry in PLUGINS.catalog.entries()
    ]


@pytest.mark.parametrize("entry", _entries())
def test_component_keeps_the_contract_of_its_kind(
    entry: CatalogEntry, tiny_model: BuildContext, tmp_path: Path
) -> None:
    spec: Any = _spec(entry)
    if entry.name == "vllm_server":
        kit.check_spec_class(spec)  # tests/vllm tests the rest: it needs a server
        return
    if spec.unavailable() is not None:
        kit.check_spec_class(spec)
        kit.check_unavailable(spec, spec.build, BuildContext(run_dir=tmp_path, model_path=tiny_model.model_path))
        return
    _check(entry, spec, tiny_model, tmp_path)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("selector", {"type": "length", "prefer": "long"}),
        ("selector", {"type": "comprehension", "mean": "arithmetic", "rank_format_weight": 0.1, "ties": "dataset"}),
        ("selector", {"type": "comprehension", "score_rounding": "bfloat16"}),
        ("selector", {"type": "comprehension", "score_rounding": {"decimals": 2}}),
        ("aggregator", {"type": "constant", "length": 100, "per_sequence": True}),
        ("shaping", {"type": "ratio", "gamma": 1e-3}),
        ("shaping", {"type": "power", "exponent": 0.1}),
        ("advantage", {"type": "group_normalized", "zero_without_correct": True}),
        ("advantage", {"type": "on_policy_baseline", "ddof": 0}),
        ("teacher_pool", {"type": "dataset", "teachers": ["teacher-1"]}),
        ("reward", {"type": "math_verify", "format_weight": 0.0}),
        (
            "intervention",
            {"type": "prefix", "share": {"type": "cosine", "start": 0.95, "end": 0.05}, "train": "context"},
        ),
        ("intervention", {"type": "hint", "sentences": 1, "train": "original"}),
        ("loss", {"type": "clip", "low": None, "high": 0.28, "dual": 3.0, "log_ratio_clamp": 10.0}),
        ("loss", {"type": "clip", "low": None, "high": None}),
        ("loss", {"type": "gspo", "low": 0.2, "high": 0.28}),
        ("loss", {"type": "cispo", "low": 0.2, "high": None}),
        ("loss", {"type": "shaped", "shaping": "identity", "clip": [0.2, 0.2], "behaviour_policy": "recorded"}),
        ("loss", {"type": "shaped", "shaping": {"type": "power", "exponent": 0.5}}),
        ("schedule", {"type": "linear", "start": 0.9, "end": 0.1, "steps": 13, "delay": 4}),
        ("schedule", {"type": "cosine", "start": 0.1, "end": 0.1, "steps": 7}),
        ("schedule", {"type": "cosine", "start": 0.0, "end": 1e-9, "delay": 90}),
        ("schedule", {"type": "piecewise", "start": 0.0, "at": [[1, 1.0]]}),
    ],
    ids=str,
)
def test_component_keeps_the_contract_with_other_options(kind: str, value: dict[str, Any]) -> None:
    getattr(kit, f"check_{kind}")(PLUGINS.catalog.resolve(kind, value))


def test_ddof_of_one_in_a_group_of_one_is_still_finite() -> None:
    kit.check_advantage(PLUGINS.catalog.resolve("advantage", {"type": "group_normalized", "ddof": 1}))  # type: ignore[arg-type]
