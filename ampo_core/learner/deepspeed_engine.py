"""DeepSpeed's engine around the policy, configured from the `deepspeed` block."""

from __future__ import annotations

import logging
from contextlib import redirect_stdout
from io import StringIO
from typing import Any, Literal

import torch
from ampo_registry.errors import ConfigError
from packaging.version import Version
from torch import nn

from ampo_core.config.tree import DeepSpeedConfig, OptimizerConfig

FIXED = Version("0.19.0")
"""Before it, ZeRO 1 and 2 with an offloaded optimizer lose the gradients of all micro-batches but the last."""


def start_deepspeed(
    policy: nn.Module, optimizer: OptimizerConfig, config: DeepSpeedConfig, dtype: Literal["float32", "bfloat16"]
) -> Any:
    """The engine that trains `policy`, whose parameters have `dtype`; with bfloat16 the masters are float32.

    Raises ConfigError for a DeepSpeed that is known to lose gradients.
    """
    import deepspeed

    check_version(deepspeed.__version__, config)
    deepspeed.utils.logger.setLevel(logging.WARNING)
    # Compiling the shared-memory collectives takes a minute and a compiler; gloo's own serve as well here.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    with redirect_stdout(StringIO()):  # where it prints what memory is in use
        engine, *_ = _initialized(deepspeed, policy, trained, optimizer, config, dtype)
    return engine


def _initialized(
    deepspeed: Any,
    policy: nn.Module,
    trained: list[nn.Parameter],
    optimizer: OptimizerConfig,
    config: DeepSpeedConfig,
    dtype: Literal["float32", "bfloat16"],
) -> Any:
    return deepspeed.initialize(
        model=policy,
        model_parameters=trained,
        optimizer=torch.optim.AdamW(
            trained,
            lr=optimizer.learning_rate,
            betas=optimizer.betas,
            weight_decay=optimizer.weight_decay,
            # without it, temporaries as large as the weights
            fused=torch.cuda.is_available() and config.offload_optimizer == "none",
        ),
        config=deepspeed_config(optimizer, config, dtype),
    )


def deepspeed_config(
    optimizer: OptimizerConfig, config: DeepSpeedConfig, dtype: Literal["float32", "bfloat16"]
) -> dict[str, Any]:
    """What DeepSpeed is told. Accumulation stays 1 there: the learner marks the last micro-batch itself."""
    zero: dict[str, Any] = {"stage": config.zero_stage}
    if config.offload_optimizer == "cpu":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if config.offload_parameters == "cpu":
        zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": optimizer.grad_clip,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**62,
    }
    if dtype == "bfloat16":
        settings["bf16"] = {"enabled": True, "check_grad_overflow": True}
        settings["data_types"] = {"grad_accum_dtype": "fp32"}
    return settings


def check_version(version: str, config: DeepSpeedConfig) -> None:
    """Raise ConfigError if this `version` of DeepSpeed would lose gradients with `config`."""
    if config.offload_optimizer == "cpu" and config.zero_stage in (1, 2) and Version(version) < FIXED:
        raise ConfigError(
            f"deepspeed.offload_optimizer: DeepSpeed {version} loses gradients of all micro-batches but the last with "
            f"ZeRO {config.zero_stage} and an offloaded optimizer; install {FIXED} or newer, or use none"
        )
