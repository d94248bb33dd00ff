"""This side of the judge `vllm`: starts the process of vllm_worker.py, asks it, and ends it.

The two speak over the process's standard input and output. When this process ends, however it ends, the other's input
does too, and then it ends itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from ampo_registry import ConfigError, JudgeRequest, LogProbs, RunError

from ampo_plugins.judges.frames import receive, send

WORKER = (sys.executable, "-m", "ampo_plugins.judges.vllm_worker")
LAST_LINES = 12
ENDING_S = 10.0
OF_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What the engine is started with; the names are vllm.LLM's, but for `path`."""

    path: str
    dtype: str
    seed: int
    trust_remote_code: bool
    gpu_memory_utilization: float
    kv_cache_memory_bytes: int | None
    max_model_len: int | None
    max_num_batched_tokens: int
    enforce_eager: bool
    enable_sleep_mode: bool


class VllmProcess:
    """The judge at `place` in the config: vLLM with `options` (those of EngineOptions), in a process of its own."""

    def __init__(self, place: str, options: Mapping[str, Any], start_timeout_s: float) -> None:
        self._place = place
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            WORKER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=own_environment(),
            # out of reach of a terminal's Ctrl-C, after which a run finishes its step
            start_new_session=True,
        )
        try:
            self._begin(options, start_timeout_s)
        except BaseException:
            self.close()
            raise

    def _begin(self, options: Mapping[str, Any], seconds: float) -> None:
        self._send(dict(options), [])
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            raise RunError(f"{self._place}: its vLLM is not up after {seconds:g} s:{self._last_words()}")
        self._receive()

    def logprobs(self, requests: Sequence[JudgeRequest], temperature: float) -> list[LogProbs]:
        """For each request the log-prob of each of its tokens, in nats. Raises RunError if the process fails."""
        starts = [len(request.prompt_token_ids) for request in requests]
        ids = [bytes((request.prompt_token_ids + request.token_ids).buffer) for request in requests]
        self._send({"starts": starts, "temperature": temperature}, ids)
        return [LogProbs.of_bytes(data) for data in self._receive()]

    def sleep(self) -> None:
        """Take its weights and its cache off the GPU until the next call of `logprobs`."""
        self._send({"sleep": True}, [])
        self._receive()

    def close(self) -> None:
        """End the process."""
        process = self._process
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._log.close()

    def _send(self, message: Mapping[str, Any], data: Sequence[bytes]) -> None:
        assert self._process.stdin is not None
        try:
            send(self._process.stdin, message, data)
        except OSError as error:
            raise self._ended() from error

    def _receive(self) -> list[bytes]:
        assert self._process.stdout is not None
        found = receive(self._process.stdout)
        if found is None:
            raise self._ended()
        message, data = found
        if "refused" in message:
            raise ConfigError(f"{self._place}: {message['refused']}")
        if "failed" in message:
            raise RunError(f"{self._place}: its vLLM failed: {message['failed']}{self._last_words()}")
        return data

    def _ended(self) -> RunError:
        code = self._process.wait()
        return RunError(f"{self._place}: its vLLM process has ended (exit code {code}):{self._last_words()}")

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").splitlines()
        return "".join(f"\n  {line}" for line in lines[-LAST_LINES:])


def own_environment() -> dict[str, str]:
    """This environment without what makes a process one of several ranks, and with this rank's GPU alone."""
    kept = {name: value for name, value in os.environ.items() if name not in OF_RANKS and "TORCHELASTIC" not in name}
    # The token that vLLM samples after a sequence as long as the model's positions is one more than it takes.
    kept["VLLM_ALLOW_LONG_MAX_MODEL_LEN"] = "1"
    import torch

    if torch.cuda.is_available():
        at = torch.cuda.current_device()
        shown = [name.strip() for name in kept.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
        kept["CUDA_VISIBLE_DEVICES"] = shown[at] if shown else str(at)
    return kept
