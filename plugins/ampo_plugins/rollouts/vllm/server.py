"""The `vllm_server` rollout: vLLM in processes of its own, on cards that the learner does not use."""

from __future__ import annotations

from typing import Annotated, Literal

from ampo_registry import BuildContext, RolloutEngine, RolloutSpec
from pydantic import Field, PositiveFloat, PositiveInt, StringConstraints

Url = Annotated[str, StringConstraints(pattern=r"^https?://[^/]+(/.*)?$")]


class VllmServerRollout(RolloutSpec):
    """Separate vLLM servers, reached over HTTP; weights go to them over NCCL by vLLM's own weight-transfer API.

    Start each with `VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --logprobs-mode processed_logprobs --generation-config vllm
    --weight-transfer-config '{"backend": "nccl"}'`, MODEL being the job's model.path. Its routes have no password:
    keep them on a private network.
    """

    type: Literal["vllm_server"] = "vllm_server"
    urls: list[Url] = Field(default=["http://127.0.0.1:8000"], min_length=1, description="one for each server")
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
        from ampo_plugins.rollouts.vllm.remote import VllmServerEngine

        return VllmServerEngine.connect(self, context)
