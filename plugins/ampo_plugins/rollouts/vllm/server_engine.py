"""The engine behind the `vllm_server` rollout."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist
from ampo_registry import (
    BuildContext,
    ConfigError,
    LogProbs,
    Rollout,
    RolloutRequest,
    RunError,
    SamplingOptions,
    TokenIds,
)
from torch import Tensor

from ampo_plugins.rollouts.vllm.samples import Sampled, as_rollout, check_lengths
from ampo_plugins.rollouts.vllm.transfer import WeightSender
from ampo_plugins.rollouts.vllm.weights import CheckedWeights, ModelParameters
from ampo_plugins.server import HttpServer, RouteMissing

NO_GPU = (
    "rollout vllm_server: weights go to the servers over NCCL, and this machine has no GPU to send them from; "
    "use the rollout vllm or transformers"
)
UNTOUCHED = ("default", "", None)
"""What a server calls weights that nobody has updated."""


class VllmServerEngine:
    """Samples on `servers`, which all serve `served`, and decodes with the tokenizer of `context`; `sender` gives what
    sends weights to them, once there are any to send."""

    def __init__(
        self,
        context: BuildContext,
        servers: Sequence[HttpServer],
        *,
        served: str,
        max_model_len: int,
        max_concurrent: int,
        sender: Callable[[], WeightSender],
    ) -> None:
        self.context, self.servers, self.served = context, tuple(servers), served
        self.policy_version = 0
        self._max_model_len = max_model_len
        self._used = [server.url for server in self.servers if _weight_version(server) not in UNTOUCHED]
        self._threads = ThreadPoolExecutor(max_workers=max_concurrent)
        self._make_sender = sender
        self._sender: WeightSender | None = None

    def generate(self, requests: Sequence[RolloutRequest], options: SamplingOptions) -> list[list[Rollout]]:
        """One list for each request, one rollout for each of its seeds, both in order; servers take turns.

        Raises RunError that names the server if it fails `retries` + 1 times.
        """
        if self._used:
            raise RunError(
                f"rollout vllm_server: {self._used[0]} holds the weights of an earlier run; restart the server"
            )
        check_lengths(requests, options, self._max_model_len)
        tasks = [(request, seed) for request in requests for seed in request.seeds]
        count, first = len(self.servers), self.context.rank
        turns = [self.servers[(first + i) % count] for i in range(len(tasks))]
        found = self._threads.map(lambda server, task: self._sample(server, task, options), turns, tasks)
        return [
            [as_rollout(next(found), options, self.context.tokenizer, self.policy_version) for _ in request.seeds]
            for request in requests
        ]

    def _sample(self, server: HttpServer, task: tuple[RolloutRequest, int], options: SamplingOptions) -> Sampled:
        """One response to `task`, a request and one of its seeds."""
        request, seed = task
        body = {
            "model": self.served,
            "prompt": list(request.prompt_token_ids),
            "seed": seed,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "max_tokens": options.limit_of(request),
            "stop_token_ids": list(options.stop_token_ids),
            "ignore_eos": True,
            "logprobs": 0,
            "return_token_ids": True,
            "skip_special_tokens": False,
        }
        [choice] = server.post("v1/completions", body, retry=True)["choices"]
        ids, logprobs = choice.get("token_ids"), (choice.get("logprobs") or {}).get("token_logprobs")
        if (
            not ids
            or logprobs is None
            or len(ids) != len(logprobs)
            or choice["finish_reason"] not in ("stop", "length")
        ):
            raise RunError(
                f"rollout vllm_server: {server.url} ended a request by {choice['finish_reason']!r} with "
                f"{len(ids or ())} token ids and {len(logprobs or ())} log-probs"
            )
        return Sampled(TokenIds(ids), LogProbs(logprobs))

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], policy_version: int) -> None:
        """Send `weights` (Hugging Face names) to all servers; a collective call, in which rank 0 alone talks to them.

        Every rank takes all items, for gathering one may be a collective call. Raises RunError without a GPU, for
        unknown, missing and misshapen parameters, and for a server that fails.
        """
        if not torch.cuda.is_available():
            raise RunError(NO_GPU)
        checked = CheckedWeights(weights, self._parameters, None)
        if self.context.rank == 0:
            if self._sender is None:
                self._sender = self._make_sender()
            self._sender.send(checked, policy_version)
        else:
            for _ in checked:
                pass
        if self.context.world_size > 1:
            dist.barrier()
        self.policy_version = policy_version
        self._used = []

    @cached_property
    def _parameters(self) -> ModelParameters:
        path, trusted = str(self.context.model_path), self.context.trust_remote_code
        return ModelParameters.of(path, trust_remote_code=trusted)

    def sleep(self) -> None:
        """Nothing: the servers have cards of their own."""

    def wake(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Leave the servers running, with the weights they have."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._sender is not None:
            self._sender.close()


def served_by(
    servers: Sequence[HttpServer], context: BuildContext, wanted: str | None, seconds: float
) -> tuple[str, int]:
    """Wait up to `seconds` for each of `servers`; the name of the model that all serve, and the longest sequence that
    all take.

    Raises ConfigError if that is not `wanted` (None: the job's model), or if there is no GPU to train with; RunError
    for a server that is not up.
    """
    if context.model_path is None or context.tokenizer is None:
        raise ConfigError("rollout vllm_server: needs a model path and a tokenizer to be built")
    if context.config.get("job") == "train" and not torch.cuda.is_available():
        raise ConfigError(NO_GPU)
    wanted = wanted or context.model_path
    models = []
    for server in servers:
        server.wait_until_up(seconds)
        [model, *_] = server.get("v1/models")["data"]
        if model.get("root", model["id"]) != wanted:
            raise ConfigError(
                f"rollout.urls: {server.url} serves {model.get('root', model['id'])}, and the job's model is "
                f"{wanted}; start it with that, or name what it serves in rollout.served_model"
            )
        models.append(model)
    if len({model["id"] for model in models}) > 1:
        raise ConfigError(f"rollout.urls: the servers name their model differently: {[m['id'] for m in models]}")
    return models[0]["id"], min(int(model["max_model_len"]) for model in models)


def _weight_version(server: HttpServer) -> Any:
    try:
        return server.get("weight_info").get("weight_version")
    except RouteMissing:
        return None
