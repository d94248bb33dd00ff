"""The engine behind the `vllm` rollout."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from ampo_registry import BuildContext, ConfigError, Rollout, RolloutRequest, RunError, SamplingOptions
from torch import Tensor

from ampo_plugins.rollouts.vllm.process import guest, import_vllm, keep_process_group, on_gpu, unbound_memory
from ampo_plugins.rollouts.vllm.samples import Sampled, as_rollout, check_lengths, sampled, sampling_params
from ampo_plugins.rollouts.vllm.weights import CheckedWeights, ModelParameters

GIB = 2**30


class VllmEngine:
    """Samples with `llm` (a vllm.LLM in this process) and decodes with `tokenizer` (a transformers tokenizer).

    `team` is the process group of the ranks that share this copy of the model, None if it is this rank's alone;
    `guest_of_group` says that the default process group was there before vLLM and must outlive it.
    """

    _open: ClassVar[bool] = False

    def __init__(
        self,
        vllm: Any,
        llm: Any,
        tokenizer: Any,
        parameters: ModelParameters,
        *,
        team: dist.ProcessGroup | None,
        guest_of_group: bool,
        sleeps: bool,
    ) -> None:
        self.vllm, self.llm, self.tokenizer, self.parameters = vllm, llm, tokenizer, parameters
        self.policy_version = 0
        self._team, self._guest_of_group, self._sleeps = team, guest_of_group, sleeps
        # which of vLLM's parts are off the GPU: "weights", "kv_cache"
        self._asleep: set[str] = set()
        self._dropped = False
        config = llm.llm_engine.vllm_config.model_config
        self._max_model_len = int(config.max_model_len)
        self._dtype: torch.dtype = config.dtype

    @classmethod
    def start(cls, context: BuildContext, wanted: Mapping[str, Any]) -> VllmEngine:
        """Load the model of `context.model_path` with the arguments of vllm.LLM that are `wanted`.

        Raises ConfigError for what a person must change.
        """
        if context.model_path is None or context.tokenizer is None:
            raise ConfigError("rollout vllm: needs a model path and a tokenizer to be built")
        size = wanted["tensor_parallel_size"]
        if context.world_size % size:
            raise ConfigError(f"rollout.tensor_parallel: {size} does not divide the {context.world_size} ranks")
        if cls._open:
            raise RunError("rollout vllm: another vllm engine is open in this process, which can hold one; close it")
        vllm = import_vllm()
        guest_of_group = dist.is_initialized()
        try:
            parameters = ModelParameters.of(context.model_path, trust_remote_code=context.trust_remote_code)
            arguments = engine_arguments(wanted, context)
            with guest(), unbound_memory():
                if (unfit := unfit_heads(context.model_path, trust_remote_code=context.trust_remote_code)) is not None:
                    raise ConfigError(
                        f"rollout vllm: {unfit}. Use another model (of the quickstart's world: task.head_size=32) or "
                        "rollout.type: transformers"
                    )
                llm = vllm.LLM(**arguments)
        except (OSError, ValueError) as error:
            raise ConfigError(f"rollout vllm: cannot load the model {context.model_path}: {error}") from error
        cls._open = True
        return cls(
            vllm,
            llm,
            context.tokenizer,
            parameters,
            team=_team(context.rank, context.world_size, size),
            guest_of_group=guest_of_group,
            sleeps=bool(arguments["enable_sleep_mode"]),
        )

    def generate(self, requests: Sequence[RolloutRequest], options: SamplingOptions) -> list[list[Rollout]]:
        """One list for each request, one rollout for each of its seeds, both in order.

        A collective call of the ranks that share a copy: each passes its own requests, all of them sample the union,
        and each gets its own rollouts. Raises RunError while the engine sleeps.
        """
        if self._asleep:
            raise RunError("rollout vllm: asked to sample while asleep")
        shares: list[Sequence[RolloutRequest]] = [list(requests)]
        mine = 0
        if self._team is not None:
            gathered: list[Any] = [None] * dist.get_world_size(self._team)
            dist.all_gather_object(gathered, list(requests), group=self._team)
            shares, mine = gathered, dist.get_rank(self._team)
        union = [request for share in shares for request in share]
        check_lengths(union, options, self._max_model_len)
        found = iter(self._sample(union, options))
        rollouts: list[list[Rollout]] = []
        for rank, share in enumerate(shares):
            for request in share:
                group = [next(found) for _ in request.seeds]
                if rank == mine:
                    rollouts.append([as_rollout(one, options, self.tokenizer, self.policy_version) for one in group])
        return rollouts

    def _sample(self, requests: Sequence[RolloutRequest], options: SamplingOptions) -> list[Sampled]:
        """One sample for each seed of each request, in order."""
        lists = [(list(request.prompt_token_ids), request.seeds) for request in requests]
        prompts = [{"prompt_token_ids": ids} for ids, seeds in lists for _ in seeds]
        if not prompts:
            return []
        params = [sampling_params(self.vllm, options, request, seed) for request in requests for seed in request.seeds]
        outputs = self.llm.generate(prompts, params, use_tqdm=False)
        return [sampled(output) for output in outputs]

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], policy_version: int) -> None:
        """Stream `weights` (Hugging Face names) into vLLM and stamp what is sampled from now on with `policy_version`.

        Every rank takes its items one at a time, all of them and in order, so that gathering an item may be a
        collective call. Asleep, the weights wake and the KV cache stays away. Raises RunError for unknown, missing
        and misshapen parameters.
        """
        self._wake("weights")
        checked = CheckedWeights(weights, self.parameters, self._dtype)
        with torch.no_grad(), guest():
            self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(checked)})
        self.llm.reset_prefix_cache()
        self.policy_version = policy_version
        self._dropped = False

    def sleep(self, level: int = 1) -> None:
        """Take weights and KV cache off the GPU; nothing to do on a CPU.

        Level 1 keeps the weights in the host's memory. Level 2 drops them, which saves that memory and the copy, and
        is for a caller that knows that `load_weights` comes before the next `wake`.
        """
        if self._sleeps and not self._asleep:
            self.llm.sleep(level=level)
            self._asleep, self._dropped = {"weights", "kv_cache"}, level > 1

    def wake(self) -> None:
        """Be ready to sample, with an empty prefix cache: what was sampled before must not matter.

        Raises RunError if the weights were dropped and none have come since.
        """
        if self._dropped:
            raise RunError("rollout vllm: its weights were dropped when it went to sleep; load_weights must come first")
        self._wake("weights", "kv_cache")
        self.llm.reset_prefix_cache()

    def _wake(self, *parts: str) -> None:
        if self._asleep:
            # vLLM takes memory from the driver, which has none while torch keeps what the learner freed.
            torch.cuda.empty_cache()
        for part in parts:
            if part in self._asleep:
                self.llm.wake_up([part])
                self._asleep.remove(part)

    def close(self) -> None:
        """Free everything and leave the default process group as it was found; the engine cannot be used again."""
        with keep_process_group(self._guest_of_group), guest():
            self.llm.llm_engine.engine_core.shutdown()
            from vllm.distributed import parallel_state

            # older versions leave their groups behind
            parallel_state.destroy_model_parallel()
            parallel_state.destroy_distributed_environment()
        if self._team is not None:
            dist.destroy_process_group(self._team)
        del self.llm
        VllmEngine._open = False
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def unfit_heads(model_path: str, *, trust_remote_code: bool) -> str | None:
    """That the model has attention heads that vLLM's kernels for CPUs do not know, which fail at the first token."""
    if on_gpu():
        return None
    from transformers import AutoConfig
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    config = AutoConfig.from_pretrained(model_path, trust_remote_code=trust_remote_code)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    known = CPUAttentionBackend.get_supported_head_sizes()
    if size in known:
        return None
    return f"on a CPU it takes no attention heads of {size} ({model_path}); allowed: {', '.join(map(str, known))}"


def engine_arguments(wanted: Mapping[str, Any], context: BuildContext) -> dict[str, Any]:
    """The keyword arguments of vllm.LLM: those `wanted`, completed from `context` and by what a CPU can do."""
    gpu = on_gpu()
    dtype, cache = wanted["dtype"], wanted["kv_cache_memory_bytes"]
    return {
        **wanted,
        "model": context.model_path,
        "skip_tokenizer_init": True,
        "trust_remote_code": context.trust_remote_code,
        "dtype": dtype if dtype != "auto" else context.dtype or ("auto" if gpu else "float32"),
        "seed": context.seed % 2**32,
        "distributed_executor_backend": "uni" if context.world_size == 1 else "external_launcher",
        "kv_cache_memory_bytes": cache if cache is not None or gpu else GIB,
        "max_model_len": wanted["max_model_len"] or wanted_length(context),
        "enforce_eager": wanted["enforce_eager"] or not gpu,
        "enable_sleep_mode": wanted["enable_sleep_mode"] and gpu,
        "logprobs_mode": "processed_logprobs",
        "generation_config": "vllm",
        "use_tqdm_on_load": False,
    }


def wanted_length(context: BuildContext) -> int | None:
    """Longest prompt + longest response that the run's config allows, at most what the model allows; None if the
    config does not say."""
    from transformers import AutoConfig

    blocks = {name: context.config.get(name) or {} for name in ("data", "rollout", "evaluation")}
    prompt = blocks["data"].get("max_prompt_tokens")
    responses = [blocks[name].get("max_response_tokens") for name in ("rollout", "evaluation")]
    response = max((tokens for tokens in responses if tokens is not None), default=None)
    if prompt is None or response is None:
        return None
    config = AutoConfig.from_pretrained(str(context.model_path), trust_remote_code=context.trust_remote_code)
    limit = getattr(config, "max_position_embeddings", None)
    return int(prompt + response if limit is None else min(prompt + response, limit))


def _team(rank: int, world_size: int, size: int) -> dist.ProcessGroup | None:
    """The group of `size` neighbouring ranks that this one belongs to; every rank must call it. None if it is alone."""
    if size == 1:
        return None
    groups = [dist.new_group(range(first, first + size), backend="gloo") for first in range(0, world_size, size)]
    own: dist.ProcessGroup = groups[rank // size]
    return own
