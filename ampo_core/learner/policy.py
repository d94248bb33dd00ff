"""The student: a Hugging Face causal LM, its forward pass over prompt-response pairs, and its weights by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from ampo_registry.errors import ConfigError, check_whole, unloadable
from safetensors import SafetensorError
from torch import nn

from ampo_core.config.tree import ModelConfig
from ampo_core.learner.attention import Sequences, use_packed_attention
from ampo_core.learner.dropout import Dropout, disable_dropout
from ampo_core.learner.logprobs import LogprobHead
from ampo_core.learner.packing import TokenPair
from ampo_core.learner.tokens import tensor_of

LOADING_ERRORS = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)
"""What transformers raises for files that are missing, cut short, of other shapes, or of an unknown model."""
Gather = Callable[[Sequence[nn.Parameter]], AbstractContextManager[Any]]
"""Gives a block in which parameters that are spread over ranks are whole."""


@dataclass(frozen=True, slots=True)
class Row:
    """Pairs laid end to end, longest first: `token_ids` and `positions` [1, tokens]; `predicting` and `targets`
    [response tokens] are in the order of the pairs and index the row and the vocabulary."""

    token_ids: torch.Tensor
    positions: torch.Tensor
    predicting: torch.Tensor
    targets: torch.Tensor
    sequences: Sequences

    @classmethod
    def of(cls, pairs: Sequence[TokenPair], device: torch.device) -> Row:
        order = sorted(range(len(pairs)), key=lambda index: -len(pairs[index]))
        lengths = [len(pairs[index]) for index in order]
        starts = dict(zip(order, accumulate(lengths, initial=0), strict=False))
        responses = [(starts[i] + len(pair.prompt_token_ids), starts[i] + len(pair)) for i, pair in enumerate(pairs)]
        ids = tensor_of(*(part for i in order for part in (pairs[i].prompt_token_ids, pairs[i].response_token_ids)))
        return cls(
            ids.to(device, torch.int64)[None],
            torch.cat([torch.arange(length, device=device) for length in lengths])[None],
            torch.cat([torch.arange(start - 1, end - 1, device=device) for start, end in responses]),
            tensor_of(*(pair.response_token_ids for pair in pairs)).to(device, torch.int64),
            Sequences.of(lengths, device),
        )


class Policy(nn.Module):
    """A causal LM that answers with log-probs and entropies of response tokens instead of logits."""

    def __init__(self, model: Any, dropout: Dropout) -> None:
        super().__init__()
        self.model = model
        self.dropout = dropout
        self.head = LogprobHead(self.plain.get_output_embeddings())

    @property
    def plain(self) -> Any:
        """The Hugging Face model, without the LoRA wrapper."""
        return self.model.get_base_model() if self.adapted else self.model

    @property
    def adapted(self) -> bool:
        """True if LoRA adapters are trained, and nothing else."""
        return hasattr(self.model, "peft_config")

    def forward(
        self, pairs: Sequence[TokenPair], temperature: float, entropy: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probs and entropies of all response tokens of `pairs`, concatenated in order: two [tokens] tensors.

        The pairs form one row without padding, longest first; attention stays within each of them. Only hidden states
        that predict a response token reach the LM head.
        """
        plain = self.plain
        device = plain.get_input_embeddings().weight.device
        row = Row.of(pairs, device)
        hidden = plain.base_model(
            input_ids=row.token_ids, position_ids=row.positions, use_cache=False, **row.sequences.arguments()
        ).last_hidden_state
        logprobs, entropies = self.head(hidden[0].index_select(0, row.predicting), row.targets, temperature, entropy)
        return logprobs, entropies

    def without_adapters(self) -> AbstractContextManager[Any]:
        """A block in which LoRA adapters, if there are any, change nothing: the start model."""
        context: AbstractContextManager[Any] = self.model.disable_adapter() if self.adapted else nullcontext()
        return context

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


def load_policy(config: ModelConfig, *, trust_remote_code: bool = False) -> Policy:
    """The model of `config` in its dtype, with LoRA adapters and gradient checkpointing as it says.

    Raises ConfigError if it cannot be loaded whole, and for a model that cannot be trained here.
    """
    from transformers import AutoModelForCausalLM

    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            config.path,
            dtype=getattr(torch, config.dtype),
            trust_remote_code=trust_remote_code,
            local_files_only=Path(config.path).is_dir(),
            output_loading_info=True,
        )
    except LOADING_ERRORS as error:
        raise unloadable("model", config.path, error) from error
    model, found = loaded
    check_whole(config.path, found["missing_keys"])
    _refuse_scaled_logits(model.config, config.path)
    _make_savable(model.generation_config, config.path)
    use_packed_attention(model, config.path)
    dropout = disable_dropout(model)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if config.lora is not None:
        model = _with_lora(model, config)
    return Policy(model, dropout)


def _refuse_scaled_logits(config: Any, path: str) -> None:
    """Raise ConfigError for a model whose logits are not the plain head of the last hidden state."""
    for name, plain in {"final_logit_softcapping": None, "logit_scale": 1.0, "logits_scaling": 1.0}.items():
        found = getattr(config, name, plain)
        if found is not None and found != plain:
            raise ConfigError(f"model.path: {path} changes its logits ({name} = {found}), which is not supported yet")


def _make_savable(generation: Any, path: str) -> None:
    """Put right what a checkpoint could not be written with: sampling options without do_sample, as in older models.

    Raises ConfigError for another generation_config.json that transformers reads and refuses to write.
    """
    try:
        generation.validate(strict=True)
    except ValueError:
        generation.do_sample = True
        try:
            generation.validate(strict=True)
        except ValueError as error:
            raise ConfigError(f"model.path: generation_config.json of {path} cannot be used: {error}") from error


def end_with(generation: Any, stop_token_ids: Sequence[int]) -> None:
    """Let `stop_token_ids` end a response in a transformers generation config."""
    generation.eos_token_id = stop_token_ids[0] if len(stop_token_ids) == 1 else list(stop_token_ids)
    # or transformers would take the EOS from config.json again
    generation._from_model_config = False


def _with_lora(model: Any, config: ModelConfig) -> Any:
    from peft import LoraConfig, get_peft_model

    assert config.lora is not None
    if config.gradient_checkpointing:
        model.enable_input_require_grads()
    adapters = LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=config.lora.target_modules,
    )
    try:
        model = get_peft_model(model, adapters)
    except ValueError as error:
        raise ConfigError(f"model.lora.target_modules: {config.path} cannot be adapted so: {error}") from error
    _refuse_adapted_head(model.get_base_model())
    return model


def _refuse_adapted_head(model: Any) -> None:
    """Raise ConfigError if LoRA changes the weight of the LM head, which is used as it is for log-probs."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if hasattr(head, "base_layer") or (hasattr(embeddings, "base_layer") and head.weight is embeddings.weight):
        raise ConfigError(
            "model.lora.target_modules: adapters on the LM head, or on embeddings tied to it, are not supported; "
            "choose other modules, or all-linear, which leaves it out"
        )
