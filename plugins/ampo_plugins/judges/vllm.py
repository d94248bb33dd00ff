"""Judge `vllm`: a model folder in a vLLM engine of its own."""

from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec
from typing import Literal

from ampo_registry import BuildContext, ConfigError, Judge, JudgeSpec
from pydantic import Field, PositiveFloat, PositiveInt

from ampo_plugins.judges.vocabulary import check_model
from ampo_plugins.rollouts.vllm.spec import GIB, NOT_INSTALLED


class VllmJudge(JudgeSpec):
    """A model in Hugging Face format in vLLM, in a process of its own beside each rank and on the rank's device.

    While nothing asks it, a GPU's memory is free of it. Beside `gpu_memory_utilization` it takes
    tokens_per_microbatch × vocabulary × 8 bytes while it is asked.
    """

    type: Literal["vllm"] = "vllm"
    path: str = Field(min_length=1, description="Hugging Face folder or Hub name")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="of its weights; auto: the policy's"
    )
    gpu_memory_utilization: float = Field(default=0.3, gt=0.0, le=1.0, description="share of a GPU's memory")
    kv_cache_gib: PositiveFloat | None = Field(
        default=None, description="size of the KV cache; null: 1 GiB on a CPU, what the share leaves on a GPU"
    )
    max_model_len: PositiveInt | None = Field(
        default=None, description="longest prompt + response, in tokens; null: the longest that the run asks about"
    )
    tokens_per_microbatch: PositiveInt = Field(default=2048, description="tokens in one forward pass")
    enforce_eager: bool = Field(
        default=True, description="no CUDA graphs: starts faster, and reading prompts gains little by them"
    )
    enable_sleep: bool = Field(
        default=True, description="weights in the host's memory while nothing asks it; a CPU ignores it"
    )
    start_timeout_s: PositiveFloat = Field(default=900.0, description="for the engine to be up, in seconds")

    def unavailable(self) -> str | None:
        """That vLLM is not installed, if so."""
        return NOT_INSTALLED.replace("rollout", "judge") if find_spec("vllm") is None else None

    @property
    def model(self) -> str | None:
        return self.path

    def check(self, context: BuildContext) -> None:
        """Raises ConfigError for too little room and another vocabulary."""
        check_model(self.path, context)
        if self.max_model_len is not None and context.longest is not None and self.max_model_len < context.longest:
            raise ConfigError(
                f"{context.place}.max_model_len: found {self.max_model_len}; the run's sequences have up to "
                f"{context.longest} tokens"
            )

    def build(self, context: BuildContext) -> Judge:
        """Start the process and wait for its engine, which then sleeps.

        Raises ConfigError for a missing or unsupported vLLM and a bad model, RunError for an engine that ends or is not
        up in time.
        """
        if (missing := self.unavailable()) is not None:
            raise ConfigError(f"{context.place}: {missing}")
        from ampo_plugins.judges.vllm_process import EngineOptions, VllmProcess

        longest = self.max_model_len or context.longest
        options = EngineOptions(
            path=self.path,
            dtype=self.dtype if self.dtype != "auto" else context.dtype or "auto",
            seed=context.seed,
            trust_remote_code=context.trust_remote_code,
            gpu_memory_utilization=self.gpu_memory_utilization,
            kv_cache_memory_bytes=None if self.kv_cache_gib is None else int(self.kv_cache_gib * GIB),
            # vLLM always samples a token, which nothing reads
            max_model_len=None if longest is None else longest + 1,
            max_num_batched_tokens=self.tokens_per_microbatch,
            enforce_eager=self.enforce_eager,
            enable_sleep_mode=self.enable_sleep,
        )
        return VllmProcess(context.place, asdict(options), self.start_timeout_s)
