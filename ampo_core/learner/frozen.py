"""A model that is not trained, loaded as the learner loads its own: the same row without padding, the same head."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import torch
from ampo_registry.errors import ConfigError
from ampo_registry.judges import JudgeRequest
from ampo_registry.tokens import LogProbs

from ampo_core.config.tree import ModelConfig, OptimizerConfig
from ampo_core.distributed.ranks import Ranks
from ampo_core.learner.learner import evaluated
from ampo_core.learner.packing import TokenPair, microbatches
from ampo_core.learner.policy import load_policy
from ampo_core.learner.tokens import tensor_of


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


class LogprobLearner(Protocol):
    """What the hops before an update ask of the learner."""

    @property
    def ranks(self) -> Ranks: ...

    @property
    def optimizer(self) -> OptimizerConfig: ...

    @property
    def has_reference(self) -> bool: ...

    def logprobs(
        self, pairs: Sequence[TokenPair], *, temperature: float, reference: bool = False
    ) -> list[torch.Tensor]: ...


class FrozenLearner:
    """The start model in the learner's place, where nothing is trained: policy and reference are the same. It is loaded
    when it is first asked."""

    has_reference = True

    def __init__(
        self, model: ModelConfig, optimizer: OptimizerConfig, ranks: Ranks, *, trust_remote_code: bool = False
    ) -> None:
        self.ranks, self.optimizer = ranks, optimizer
        budget = optimizer.tokens_per_microbatch
        load = partial(FrozenModel, model.path, model.dtype, ranks.device, budget, key="model.path")
        self._load = partial(load, trust_remote_code=trust_remote_code)
        self._model: FrozenModel | None = None

    def logprobs(
        self, pairs: Sequence[TokenPair], *, temperature: float, reference: bool = False
    ) -> list[torch.Tensor]:
        """As `Learner.logprobs`."""
        self._model = self._model or self._load()
        requests = [JudgeRequest(pair.prompt_token_ids, pair.response_token_ids) for pair in pairs]
        return [tensor_of(found) for found in self._model.logprobs(requests, temperature)]


def packed(log_probs: torch.Tensor) -> LogProbs:
    """`log_probs` [n] as the sequence that travels between hops and ranks."""
    return LogProbs(log_probs.float().cpu().numpy())
