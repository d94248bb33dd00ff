"""vLLM as a guest in a process that is not its own: imported quietly, and what it changes for good put back."""

from __future__ import annotations

import logging
import os
import random
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from inspect import unwrap
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ampo_registry import ConfigError
from torch.overrides import TorchFunctionMode

SUPPORTED = ((0, 26), (0, 34))
# Set before the import, unless the user says otherwise: a quiet screen, and nothing sent anywhere.
DEFAULTS = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
}


def import_vllm() -> Any:
    """The vllm package. Raises ConfigError if its version is not supported."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    # The engine runs in this process: the learner's weights reach it without a copy through another one.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    with guest():
        import vllm

        refuse_version(str(vllm.__version__))
        if not on_gpu():
            share_nothing()
    return vllm


def on_gpu() -> bool:
    """True if this vLLM is a build for GPUs and has found one."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cuda_alike())


def refuse_version(version: str) -> None:
    """Raise ConfigError unless `version` is in the supported range."""
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    low, high = SUPPORTED
    if not low <= found < high:
        allowed = f">={low[0]}.{low[1]},<{high[0]}.{high[1]}"
        raise ConfigError(f"rollout vllm: vLLM {version} is installed; supported: {allowed}")


@contextmanager
def guest() -> Iterator[None]:
    """Put back what vLLM sets for the whole process: random states, threads, log level and warnings' filters.

    A CPU worker seeds every generator and replaces `torch.set_num_threads` by a function that does nothing. Not for
    sampling, which changes none of it and may run in a thread of its own: what the learner draws meanwhile would be
    put back too.
    """
    threads, set_threads = torch.get_num_threads(), torch.set_num_threads
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    noisy = logging.getLogger("torch._library.triton")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        noisy.setLevel(level)
        torch.set_num_threads = set_threads
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)


class _OwnGenerator(TorchFunctionMode):
    """Inside, and in this thread alone, `torch.randint` without a generator draws from this one's."""

    def __init__(self) -> None:
        super().__init__()
        self._generator = torch.Generator()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        own = {"generator": self._generator} if func is torch.randint else {}
        return func(*args, **{**own, **(kwargs or {})})


def share_nothing() -> None:
    """Keep vLLM's sampler on a CPU off what is the learner's too, which may be at work in another thread.

    For each token it draws a number from the process's generator and, as every request has a seed, throws it away. It
    also has torch compile a function, for which a C++ compiler takes 20 s: the plain one does, with no word to the rest
    of torch.
    """
    from vllm.v1.sample import sampler
    from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler

    sampler.batched_count_greater_than = unwrap(sampler.batched_count_greater_than)
    draw, apart = unwrap(TopKTopPSampler.forward_cpu), _OwnGenerator()

    @wraps(draw)
    def forward_cpu(*arguments: Any) -> Any:
        with apart:
            return draw(*arguments)

    TopKTopPSampler.forward_cpu = forward_cpu


@contextmanager
def unbound_memory() -> Iterator[None]:
    """Inside, a CPU worker cannot bind all memory of this process, the learner's too, to one NUMA node."""
    import_module("vllm._custom_ops")  # loads the operators
    operators, name = torch.ops._C, "init_cpu_memory_env"
    bind = getattr(operators, name, None)
    if bind is None:
        yield
        return
    setattr(operators, name, lambda nodes: None)
    try:
        yield
    finally:
        setattr(operators, name, bind)


@contextmanager
def keep_process_group(keep: bool) -> Iterator[None]:
    """With `keep`, nothing inside can destroy the default process group: vLLM's shutdown would, and it is the
    learner's. Groups of its own may go."""
    if not keep:
        yield
        return
    destroy = dist.destroy_process_group

    def destroy_own(group: dist.ProcessGroup | None = None) -> None:
        if group is not None and group is not dist.group.WORLD:
            destroy(group)

    dist.destroy_process_group = destroy_own
    try:
        yield
    finally:
        dist.destroy_process_group = destroy
