"""Rollout `my_rollout`: one response after the other, token by token. Slow, whole, and easy to change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from ampo_registry import (
    BuildContext,
    ComponentSpec,
    ConfigError,
    LogProbs,
    Rollout,
    RolloutEngine,
    RolloutRequest,
    RolloutSpec,
    SamplingOptions,
    TokenIds,
    hookimpl,
)

if TYPE_CHECKING:
    import torch


class MyRollout(RolloutSpec):
    """The model's own forward pass with its cache, a response at a time."""

    type: Literal["my_rollout"] = "my_rollout"

    def build(self, context: BuildContext) -> RolloutEngine:
        """Load a copy of the weights."""
        import transformers

        if context.model_path is None:
            raise ConfigError("rollout my_rollout: needs a model to be built")
        models: Any = transformers.AutoModelForCausalLM
        return Engine(models.from_pretrained(context.model_path, dtype="float32").eval(), context.tokenizer)


class Engine:
    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer, self.version = model, tokenizer, 0

    def generate(self, requests: Sequence[RolloutRequest], options: SamplingOptions) -> list[list[Rollout]]:
        """One rollout for each seed of each request; a seed decides its response, whatever else is asked."""
        if options.top_p < 1.0:
            raise ConfigError(f"rollout my_rollout: it cannot cut off at top_p {options.top_p:g}")
        return [[self._sample(request, seed, options) for seed in request.seeds] for request in requests]

    def _sample(self, request: RolloutRequest, seed: int, options: SamplingOptions) -> Rollout:
        import torch

        luck = torch.Generator().manual_seed(seed)
        ids, logprobs, fed, cache = list[int](), list[float](), list(request.prompt_token_ids), None
        with torch.inference_mode():
            while len(ids) < options.limit_of(request) and not (ids and ids[-1] in options.stop_token_ids):
                given: Any = self.model(torch.tensor([fed]), past_key_values=cache, use_cache=True)
                cache, known = (
                    given.past_key_values,
                    (given.logits[0, -1] / (options.temperature or 1.0)).log_softmax(0),
                )
                drawn = torch.multinomial(known.exp(), 1, generator=luck) if options.temperature else known.argmax()
                fed = [int(drawn)]
                ids += fed
                logprobs.append(min(float(known[fed[0]]), 0.0))
        stopped = ids[-1] in options.stop_token_ids
        text = self.tokenizer.decode(ids[:-1] if stopped else ids, skip_special_tokens=True)
        return Rollout(TokenIds(ids), LogProbs(logprobs), text, "stop" if stopped else "length", self.version)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]], policy_version: int) -> None:
        """Take over the learner's weights, by their Hugging Face names."""
        self.model.load_state_dict(dict(weights), strict=False)
        self.version = policy_version

    def sleep(self) -> None:
        """Called where the learner needs the accelerator's memory."""

    def wake(self) -> None:
        """Called before the next `generate`."""

    def close(self) -> None:
        """The run is over."""


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """What this distribution brings."""
    return [MyRollout]
