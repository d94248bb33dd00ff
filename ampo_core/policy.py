"""The student: a Hugging Face causal LM, its forward pass over prompt-response pairs, and its weights by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from ampo_registry.errors import ConfigError
from torch import nn

from ampo_core.config.tree import ModelConfig
from ampo_core.logprobs import token_logprobs
from ampo_core.packing import TokenPair


Gather = Callable[[Sequence[nn.Parameter]], AbstractContextManager[Any]]
"""Gives a block in which parameters that are spread over ranks are whole."""


class Policy(nn.Module):
    """A causal LM that answers with log-probs and entropies of response tokens instead of logits."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @property
    def plain(self) -> Any:
        """The Hugging Face model, without the LoRA wrapper."""
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model

    def forward(
        self, pairs: Sequence[TokenPair], temperature: float, entropy: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probs and entropies of all response tokens of `pairs`, concatenated in order: two [tokens] tensors.

        Rows are padded on the right and attention is causal, so padding is never attended to.
        """
        plain = self.plain
        device = plain.get_input_embeddings().weight.device
        rows = [torch.tensor(pair.prompt_token_ids + pair.response_token_ids, device=device) for pair in pairs]
        token_ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        hidden = plain.base_model(input_ids=token_ids, use_cache=False).last_hidden_state
        predicting, targets = [], []
        for row, pair in enumerate(pairs):
            start, end = len(pair.prompt_token_ids), len(pair)
            predicting.append(hidden[row, start - 1 : end - 1])
            targets.append(rows[row][start:])
        head = plain.get_output_embeddings()
        return token_logprobs(
            torch.cat(predicting),
            torch.cat(targets),
            head,
            head.weight.shape[0],
            temperature=temperature,
            entropy=entropy,
        )

    def weights(self, gather: Gather = lambda parameters: nullcontext()) -> Iterator[tuple[str, torch.Tensor]]:
        """(Hugging Face name, tensor) of every parameter, tied ones under each of their names, LoRA merged in.

        One at a time, each inside `gather` of the parameters that it is made of: what ZeRO 3 holds in parts is whole
        there. A gathered tensor is a copy; the others are the parameters themselves.
        """
        modules = dict(self.plain.named_modules())
        for name, parameter in self.plain.named_parameters(remove_duplicate=False):
            if ".lora_" in name:
                continue
            module = modules[name.rpartition(".")[0].removesuffix(".base_layer")]
            adapters = getattr(module, "active_adapters", ())
            merged = bool(adapters) and name.endswith(".base_layer.weight")
            parts = [p for part, p in module.named_parameters() if ".lora_" in f".{part}"] if merged else []
            context = gather([parameter, *parts])
            with context, torch.no_grad():
                value = parameter.detach()
                if merged:
                    value = value + sum(module.get_delta_weight(adapter) for adapter in adapters)
                elif not isinstance(context, nullcontext):
                    value = value.clone()
            yield name.replace(".base_layer.", "."), value

    def save(self, folder: Path) -> None:
        """Write the weights and config in Hugging Face format (safetensors), LoRA merged."""
        self.plain.save_pretrained(folder, state_dict=dict(self.weights()))


def load_policy(config: ModelConfig, *, trust_remote_code: bool = False) -> Policy:
    """The model of `config` in its dtype, with LoRA adapters and gradient checkpointing as it says."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        config.path,
        dtype=getattr(torch, config.dtype),
        trust_remote_code=trust_remote_code,
        local_files_only=Path(config.path).is_dir(),
    )
    _refuse_scaled_logits(model.config, config.path)
    _disable_dropout(model)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if config.lora is not None:
        model = _with_lora(model, config)
    return Policy(model)


def _refuse_scaled_logits(config: Any, path: str) -> None:
    """Raise ConfigError for a model whose logits are not the plain head of the last hidden state."""
    for name, plain in {"final_logit_softcapping": None, "logit_scale": 1.0, "logits_scaling": 1.0}.items():
        found = getattr(config, name, plain)
        if found is not None and found != plain:
            raise ConfigError(f"model.path: {path} changes its logits ({name} = {found}), which is not supported yet")


def _disable_dropout(model: nn.Module) -> None:
    """Set the checkpoint's dropout to 0: with it the ratio π_θ/π_old would not be 1 before the first update."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]


def _with_lora(model: Any, config: ModelConfig) -> Any:
    from peft import LoraConfig, get_peft_model

    assert config.lora is not None
    if config.gradient_checkpointing:
        model.enable_input_require_grads()
    return get_peft_model(
        model,
        LoraConfig(
            task_type="CAUSAL_LM",
            r=config.lora.rank,
            lora_alpha=config.lora.alpha,
            lora_dropout=config.lora.dropout,
            target_modules=config.lora.target_modules,
        ),
    )
