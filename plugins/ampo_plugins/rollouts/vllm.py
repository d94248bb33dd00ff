"""vLLM in the training process: declared here so that configs can name it; the engine is a later release's."""

from __future__ import annotations

from typing import Literal

from ampo_registry import BuildContext, NotYetError, RolloutEngine, RolloutSpec
from pydantic import Field, PositiveFloat, PositiveInt

NOT_YET = "not yet: the vllm rollout comes with the engines release"


class VllmRollout(RolloutSpec):
    """vLLM beside the learner on the same devices."""

    type: Literal["vllm"] = "vllm"
    tensor_parallel: PositiveInt = Field(default=1, description="ranks that share one copy of the model")
    gpu_memory_utilization: float = Field(default=0.5, gt=0.0, le=1.0, description="share of a device's memory")
    enforce_eager: bool = Field(default=False, description="no CUDA graphs: slower, starts faster")
    enable_sleep: bool = Field(default=True, description="give the memory back to the learner between rollouts")
    logprob_gap_limit: PositiveFloat | None = Field(
        default=None, description="stop when sampler and learner differ by more nats a token on average"
    )

    def unavailable(self) -> str | None:
        """Always: this release has the options and not the engine."""
        return NOT_YET

    def build(self, context: BuildContext) -> RolloutEngine:
        """Raises NotYetError."""
        raise NotYetError(NOT_YET)
