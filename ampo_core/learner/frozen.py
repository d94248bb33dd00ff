"""A model that is not trained, loaded as the learner loads its own: the same row without padding, the same head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from ampo_registry.errors import ConfigError
from ampo_registry.judges import JudgeRequest
from ampo_registry.tokens import LogProbs

from ampo_core.config.tree import ModelConfig
from ampo_core.learner.learner import evaluated
from ampo_core.learner.packing import TokenPair, microbatches
from ampo_core.learner.policy import load_policy


class FrozenModel:
    """Log-probs under the model in `path`, in micro-batches of at most `tokens_per_microbatch` tokens.

    It is whole on each rank. Raises ConfigError for what cannot be loaded; `key` is where the config names
    it.
    """

    def __init__(
        self,
        path: str,
        dtype: str,
        device: torch.device,
        tokens_per_microbatch: int,
        *,
        key: str,
        trust_remote_code: bool = False,
    ) -> None:
        config = ModelConfig.model_validate({"path": path, "dtype": dtype, "gradient_checkpointing": False})
        try:
            policy = load_policy(config, trust_remote_code=trust_remote_code)
        except ConfigError as error:
            raise ConfigError(str(error).replace("model.path", key, 1)) from error
        self._policy = policy.requires_grad_(False)
        self._device, self._tokens = device, tokens_per_microbatch

    def logprobs(self, requests: Sequence[JudgeRequest], temperature: float) -> list[LogProbs]:
        """For each request the log-prob of each of its tokens, in nats."""
        pairs = [TokenPair(request.prompt_token_ids, request.token_ids) for request in requests]
        self._policy.to(self._device)
        rounds = microbatches([len(pair) for pair in pairs], self._tokens)
        found = evaluated(self._policy, pairs, rounds, temperature, entropy=False)
        return [packed(log_probs) for log_probs, _ in found]

    def sleep(self) -> None:
        """Leave the accelerator until the next call of `logprobs`."""
        if self._device.type != "cpu":
            self._policy.to("cpu")
            torch.cuda.empty_cache()


def packed(log_probs: torch.Tensor) -> LogProbs:
    """`log_probs` [n] as the sequence that travels between hops and ranks."""
    return LogProbs(log_probs.float().cpu().numpy())
