"""The engine behind the `transformers` rollout: batches requests, owns a copy of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from ampo_registry import BuildContext, ConfigError, Rollout, RolloutRequest, RunError, SamplingOptions
from ampo_registry.errors import check_whole, unloadable
from torch import Tensor

from ampo_plugins.rollouts.transformers.decoding import Row, Sampled, decode


class TransformersEngine:
    """Samples with `model` [own copy, eval mode] and decodes with `tokenizer` (a transformers tokenizer)."""

    def __init__(self, model: Any, tokenizer: Any, *, max_batch_sequences: int, max_batch_tokens: int) -> None:
        self.model = model.requires_grad_(False)
        self.model.train(False)
        self.tokenizer = tokenizer
        self.policy_version = 0
        self._max_sequences, self._max_tokens = max_batch_sequences, max_batch_tokens
        self._home = model.device

    def generate(self, requests: Sequence[RolloutRequest], options: SamplingOptions) -> list[list[Rollout]]:
        """One list for each request, one rollout for each of its seeds, both in order.

        Rows with prompts of similar length are decoded together, at most `max_batch_sequences` at once. Raises
        RunError while the engine sleeps.
        """
        if self.model.device != self._home:
            raise RunError("rollout transformers: asked to sample while asleep")
        rows = [
            (at, Row(request.prompt_token_ids, seed, options.limit_of(request)))
            for at, request in enumerate(requests)
            for seed in request.seeds
        ]
        order = sorted(range(len(rows)), key=lambda i: (len(rows[i][1].prompt), rows[i][0]))
        sampled: dict[int, Sampled] = {}
        for chunk in self._chunks(order, [row for _, row in rows]):
            sampled.update(zip(chunk, decode(self.model, [rows[i][1] for i in chunk], options), strict=True))
        rollouts: list[list[Rollout]] = [[] for _ in requests]
        for i, (at, _) in enumerate(rows):
            rollouts[at].append(self._rollout(sampled[i]))
        return rollouts

    def _chunks(self, order: Sequence[int], rows: Sequence[Row]) -> Iterator[list[int]]:
        """Split `order` (ascending prompt length) so that each chunk keeps both caps; a lone row always passes."""
        chunk: list[int] = []
        limit = 0
        for i in order:
            limit = max(limit, rows[i].limit)
            tokens = (len(chunk) + 1) * (len(rows[i].prompt) + limit)
            if chunk and (len(chunk) == self._max_sequences or tokens > self._max_tokens):
                yield chunk
                chunk, limit = [], rows[i].limit
            chunk.append(i)
        if chunk:
            yield chunk

    def _rollout(self, sampled: Sampled) -> Rollout:
        # A stop token need not be a special one, so it is left out of the text by hand.
        shown = sampled.token_ids[:-1] if sampled.stopped else sampled.token_ids
        return Rollout(
            token_ids=sampled.token_ids,
            logprobs=sampled.logprobs,
            text=self.tokenizer.decode(list(shown), skip_special_tokens=True, clean_up_tokenization_spaces=False),
            finish_reason="stop" if sampled.stopped else "length",
            policy_version=self.policy_version,
        )

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], policy_version: int) -> None:
        """Copy `weights` (Hugging Face names) in place and stamp what is sampled from now on with `policy_version`.

        Tied parameters may come under one name or under both. Raises RunError for an unknown name, a wrong shape,
        tied names with different values, or a parameter that did not come: nothing may keep its old value unseen.
        """
        targets = self.model.state_dict(keep_vars=True)
        covered: dict[int, str] = {}
        with torch.no_grad():
            for name, value in weights:
                target = targets.get(name)
                if target is None:
                    near = get_close_matches(name, targets, n=1)
                    raise RunError(f"weight sync: the model has no {name}" + (f"; nearest: {near[0]}" if near else ""))
                if target.shape != value.shape:
                    raise RunError(f"weight sync: {name} is {tuple(value.shape)}, the model's {tuple(target.shape)}")
                fresh = value.detach().to(device=target.device, dtype=target.dtype)
                tied = covered.setdefault(id(target), name)
                # two NaN are a diverged model, not two values
                if tied != name and not torch.allclose(target, fresh, rtol=0, atol=0, equal_nan=True):
                    raise RunError(f"weight sync: {name} and {tied} are tied in the model and came with other values")
                target.copy_(fresh)
        missing = [name for name, parameter in self.model.named_parameters() if id(parameter) not in covered]
        if missing:
            raise RunError(f"weight sync: {len(missing)} parameters did not come, first {missing[0]}")
        self.policy_version = policy_version

    def sleep(self) -> None:
        """Move the weights off the GPU; nothing to do on a CPU."""
        if self._home.type == "cuda":
            self.model.to("cpu")
            torch.cuda.empty_cache()

    def wake(self) -> None:
        """Bring the weights back to where they were loaded."""
        self.model.to(self._home)

    def close(self) -> None:
        """Free the model; the engine cannot be used afterwards."""
        del self.model
        if self._home.type == "cuda":
            torch.cuda.empty_cache()


def load_model(context: BuildContext, dtype: str) -> Any:
    """The model of `context.model_path` on this rank's GPU, or on the CPU, in `dtype` (a name of torch's, or auto).

    Raises ConfigError if there is none or it is no causal LM.
    """
    from transformers import AutoModelForCausalLM

    if context.model_path is None or context.tokenizer is None:
        raise ConfigError("rollout transformers: needs a model path and a tokenizer to be built")
    gpus = torch.cuda.device_count()
    if dtype == "auto":
        dtype = context.dtype or ("auto" if gpus else "float32")
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            context.model_path,
            dtype=dtype,
            local_files_only=Path(context.model_path).is_dir(),
            trust_remote_code=context.trust_remote_code,
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise unloadable("model", context.model_path, error) from error
    model, found = loaded
    check_whole(context.model_path, found["missing_keys"])
    if gpus:
        return model.to(torch.device("cuda", context.rank % gpus))
    from ampo_plugins.rollouts.transformers.cpu_attention import use_grouped_attention

    use_grouped_attention(model)
    return model
