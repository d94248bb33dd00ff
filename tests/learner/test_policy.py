"""Packed rows against one sequence at a time: values, gradients, and that nothing passes between sequences."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ampo_registry import ConfigError
from safetensors.torch import load_file, save_file

from ampo_core.config.tree import LoraConfig, ModelConfig
from ampo_core.learner.attention import Sequences, packed_attention
from ampo_core.learner.dropout import refuse_other_mode
from ampo_core.learner.packing import TokenPair
from ampo_core.learner.policy import Policy, load_policy

PAIRS = [TokenPair(tuple(range(1, 2 + n % 4)), tuple(range(4, 4 + n))) for n in (3, 9, 1, 20, 2, 9, 14)]

SHAPE = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.1,
}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "qwen2_tied": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2_untied": ("Qwen2", {"tie_word_embeddings": False}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "mistral_sliding": ("Mistral", {"sliding_window": 8}),
    "yarn": ("Llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}}),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes a random model of one of the ARCHITECTURES once."""
    import transformers

    folder = tmp_path_factory.mktemp("architectures")

    def save(name: str) -> Path:
        family, options = ARCHITECTURES[name]
        if not (folder / name).exists():
            torch.manual_seed(0)
            config = getattr(transformers, f"{family}Config")(**{**SHAPE, **options})
            getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(folder / name)
        return folder / name

    return save


def policy_of(folder: Path, **options: Any) -> Policy:
    return load_policy(
        ModelConfig(path=str(folder), **{"dtype": "float32", "gradient_checkpointing": False, **options})
    )


def one_by_one(model: Any, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs and entropies of PAIRS with transformers alone, one sequence at a time."""
    log_probs, entropies = [], []
    for pair in PAIRS:
        ids, start = torch.tensor([pair.prompt_token_ids + pair.response_token_ids]), len(pair.prompt_token_ids)
        logs = (model(ids, use_cache=False).logits[0, start - 1 : -1] / temperature).log_softmax(-1)
        log_probs.append(logs.gather(1, ids[0, start:, None])[:, 0])
        entropies.append(-(logs.exp() * logs).sum(-1))
    return torch.cat(log_probs), torch.cat(entropies)


def loss(log_probs: torch.Tensor, entropies: torch.Tensor) -> torch.Tensor:
    """A mean, as in training, that tells all tokens apart."""
    weights = torch.linspace(-1, 1, len(log_probs))
    return ((log_probs * weights).sum() + 0.3 * (entropies * weights.flip(0)).sum()) / len(log_probs)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_packed_is_one_by_one(name: str, checkpointing: bool, saved: Callable[[str], Path]) -> None:
    from transformers import AutoModelForCausalLM

    policy = policy_of(saved(name), gradient_checkpointing=checkpointing).train()
    alone = AutoModelForCausalLM.from_pretrained(saved(name), dtype=torch.float32)
    found, wanted = policy(PAIRS, 0.7, True), one_by_one(alone, 0.7)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    loss(*found).backward()
    loss(*wanted).backward()
    gradients = {parameter_name: p.grad for parameter_name, p in policy.plain.named_parameters()}
    for parameter_name, parameter in alone.named_parameters():
        torch.testing.assert_close(gradients[parameter_name], parameter.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
def test_packed_is_one_by_one_with_lora(checkpointing: bool, saved: Callable[[str], Path]) -> None:
    from transformers import AutoModelForCausalLM

    lora = LoraConfig(rank=4, dropout=0.0)
    policy = policy_of(saved("qwen2_tied"), gradient_checkpointing=checkpointing, lora=lora).train()
    trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
    assert trained
    assert all(".lora_" in name for name in trained)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trained.values():
            parameter.normal_(std=0.05)
    merged = AutoModelForCausalLM.from_pretrained(saved("qwen2_tied"), dtype=torch.float32)
    merged.load_state_dict(dict(policy.weights()))
    found, wanted = policy(PAIRS, 1.0, True), one_by_one(merged, 1.0)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    loss(*found).backward()
    loss(*wanted).backward()
    name = "model.layers.0.self_attn.q_proj"
    layer = policy.plain.get_submodule(name)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    whole = merged.get_submodule(name).weight.grad * layer.scaling["default"]
    torch.testing.assert_close(a.grad, b.detach().T @ whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(b.grad, whole @ a.detach().T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["qwen2_tied", "mistral_sliding"])
def test_a_changed_sequence_leaves_the_others_alone(name: str, saved: Callable[[str], Path]) -> None:
    policy = policy_of(saved(name)).eval()
    with torch.no_grad():
        before, _ = policy(PAIRS, 1.0, False)
        for changed in range(len(PAIRS)):
            pairs = list(PAIRS)
            pairs[changed] = TokenPair(
                tuple(59 - token for token in PAIRS[changed].prompt_token_ids),
                tuple(59 - token for token in PAIRS[changed].response_token_ids),
            )
            after, _ = policy(pairs, 1.0, False)
            parts = [
                torch.split(log_probs, [len(p.response_token_ids) for p in PAIRS]) for log_probs in (before, after)
            ]
            for i, (own, other) in enumerate(zip(*parts, strict=True)):
                assert torch.equal(own, other) == (i != changed)


def test_the_order_of_pairs_is_that_of_the_results(saved: Callable[[str], Path]) -> None:
    policy = policy_of(saved("llama")).eval()
    with torch.no_grad():
        forward, backward = policy(PAIRS, 1.0, False)[0], policy(PAIRS[::-1], 1.0, False)[0]
    lengths = [len(pair.response_token_ids) for pair in PAIRS]
    for own, other in zip(forward.split(lengths), backward.split(lengths[::-1])[::-1], strict=True):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-6)


def test_bfloat16_weights_load_as_such_and_give_float32_log_probs(saved: Callable[[str], Path]) -> None:
    policy = policy_of(saved("qwen2_untied"), dtype="bfloat16")
    assert {p.dtype for p in policy.parameters()} == {torch.bfloat16}
    log_probs, entropies = policy(PAIRS, 1.0, True)
    assert log_probs.dtype == entropies.dtype == torch.float32
    exact, _ = policy_of(saved("qwen2_untied"))(PAIRS, 1.0, True)
    torch.testing.assert_close(log_probs, exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("family", "options", "reason"),
    [
        ("Mamba", {"state_size": 4}, "a state besides attention"),
        ("GptOss", {"head_dim": 8, "num_local_experts": 2}, "attention sinks"),
        ("Gemma2", {"head_dim": 8, "final_logit_softcapping": None}, "attn_logit_softcapping"),
        ("Llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "longest sequence"),
    ],
)
def test_what_cannot_be_packed_is_refused(family: str, options: dict[str, Any], reason: str, tmp_path: Path) -> None:
    import transformers

    config = getattr(transformers, f"{family}Config")(**{**SHAPE, **options})
    getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=f"cannot be packed: .*{reason}"):
        policy_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "modules"), [("qwen2_untied", ["lm_head"]), ("qwen2_tied", ["embed_tokens"]), ("qwen2_tied", ["lm_head"])]
)
def test_lora_on_the_head_is_refused(name: str, modules: list[str], saved: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match=r"model\.lora\.target_modules: .*the LM head"):
        policy_of(saved(name), lora=LoraConfig(rank=4, target_modules=modules))


@pytest.mark.parametrize("modules", [["nope"], ["input_layernorm"]])
def test_adapters_on_what_the_model_does_not_have_are_refused(modules: list[str], saved: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match=r"model\.lora\.target_modules: .* cannot be adapted so: "):
        policy_of(saved("llama"), lora=LoraConfig(rank=4, target_modules=modules))


def test_a_model_with_missing_weights_is_refused(saved: Callable[[str], Path], tmp_path: Path) -> None:
    """transformers would give them random numbers."""
    shutil.copytree(saved("llama"), tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    lost = [name for name in weights if "layers.0.mlp" in name]
    save_file(
        {name: w for name, w in weights.items() if name not in lost}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ConfigError, match=rf"lacks 3 of the model's weights, first {re.escape(min(lost))}"):
        policy_of(tmp_path)


@pytest.mark.parametrize("left", [0, 8, 2000])
def test_a_model_that_cannot_be_loaded_is_named(saved: Callable[[str], Path], tmp_path: Path, left: int) -> None:
    shutil.copytree(saved("llama"), tmp_path, dirs_exist_ok=True)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(ConfigError, match=f"no model could be loaded from the folder {tmp_path}: .*"):
        policy_of(tmp_path)


def test_attention_that_does_not_get_the_boundaries_says_so(saved: Callable[[str], Path]) -> None:
    policy = policy_of(saved("llama"))
    with pytest.raises(ConfigError, match="boundaries of sequences do not reach it"):
        policy.plain(torch.tensor([[1, 2, 3]]))


@pytest.mark.gpu
@pytest.mark.parametrize("window", [None, 24])
def test_the_flash_kernel_on_a_gpu_is_the_form_by_length(window: int | None) -> None:
    torch.manual_seed(0)
    sequences = Sequences.of([200, 90, 90, 33, 1], torch.device("cuda"))
    module = torch.nn.Module()
    results = []
    for dtype in (torch.bfloat16, torch.float32):
        torch.manual_seed(0)
        shapes = [(1, heads, sum(sequences.lengths), 64) for heads in (8, 2, 2)]
        rows = [torch.randn(shape).to("cuda", torch.bfloat16).to(dtype).requires_grad_() for shape in shapes]
        found, _ = packed_attention(module, *rows, None, sliding_window=window, sequences=sequences)
        grads = torch.autograd.grad(found.float().square().sum(), rows)
        results.append([tensor.float() for tensor in (found, *grads)])
    for low, exact in zip(*results, strict=True):
        torch.testing.assert_close(low, exact, rtol=0.05, atol=0.05)


DROPPING: dict[str, tuple[str, dict[str, Any]]] = {
    "numbers of modules": ("OPT", {"dropout": 0.4, "attention_dropout": 0.3, "layerdrop": 0.9, "ffn_dim": 64}),
    "a config read in each forward": ("Persimmon", {"hidden_dropout": 0.4, "attention_dropout": 0.3}),
    "a router's noise": ("Mixtral", {"router_jitter_noise": 0.5, "num_local_experts": 2, "attention_dropout": 0.3}),
    "modules": ("Phi", {"resid_pdrop": 0.4, "embd_pdrop": 0.3, "attention_dropout": 0.2}),
    "StarCoder2": ("Starcoder2", {"residual_dropout": 0.1, "embedding_dropout": 0.1, "attention_dropout": 0.1}),
    "GPT-2": ("GPT2", {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}),
    "GPT-NeoX": ("GPTNeoX", {"hidden_dropout": 0.1, "attention_dropout": 0.1}),
    "Qwen2": ("Qwen2", {"attention_dropout": 0.1}),
    "Llama": ("Llama", {"attention_dropout": 0.1}),
    "OLMo 2": ("Olmo2", {"attention_dropout": 0.1}),
    "Granite": ("Granite", {"attention_dropout": 0.1}),
    "Qwen2 MoE": ("Qwen2Moe", {"attention_dropout": 0.1, "num_experts": 4, "moe_intermediate_size": 16}),
    "OLMo": ("Olmo", {"attention_dropout": 0.1}),
}


@pytest.mark.parametrize("where", DROPPING)
def test_no_dropout_of_the_checkpoint_is_left_in_training(where: str, tmp_path: Path) -> None:
    import transformers

    architecture, options = DROPPING[where]
    shape = {**SHAPE, "num_key_value_heads": 4, "max_position_embeddings": 64, "pad_token_id": 1, **options}
    config = getattr(transformers, f"{architecture}Config")(**shape)
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "start")
    policy = policy_of(tmp_path / "start")
    refuse_other_mode(policy, lambda: policy(PAIRS, 1.0, False)[0], "start")
    still = policy.eval()(PAIRS, 1.0, True)
    for _ in range(3):
        torch.testing.assert_close(policy.train()(PAIRS, 1.0, True), still, rtol=0, atol=0)
    with policy.dropout.restored():
        policy.plain.save_pretrained(tmp_path / "saved")
    saved = type(config).from_pretrained(tmp_path / "saved")
    assert {name: getattr(saved, name) for name in options} == options
