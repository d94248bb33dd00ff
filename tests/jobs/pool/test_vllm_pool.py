"""A pool by vLLM: one model in this process, another behind vLLM's own OpenAI server, both on this machine's CPU."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.pool.conftest import STOPS
from tests.plugins.vllm.conftest import needs_vllm, own_environment, write_model
from tests.plugins.vllm.test_vllm_server_real import COMMAND, OPTIONS, SIZES, needs_server

START_S = 900.0
"""Far beyond what the server takes to start; a machine may be busy."""

pytestmark = [needs_vllm, needs_server, pytest.mark.slow, pytest.mark.process]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, golden_tokenizer: Any) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tied", golden_tokenizer, tied=True)


@pytest.fixture(scope="module")
def url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    environment = {**own_environment(), "VLLM_NO_USAGE_STATS": "1", "TORCHDYNAMO_DISABLE": "1"}
    command = [*COMMAND, *OPTIONS, *SIZES, "--model", str(model), "--served-model-name", "big", "--port", str(port)]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, folder / "log.txt")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=60)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise AssertionError(f"no server at {url}: {log.read_text()[-3000:]}")


def test_a_pool_of_a_model_and_a_served_one(
    url: str, model: Path, build: Callable[..., Any], golden_tokenizer: Any
) -> None:
    stops = golden_tokenizer.convert_tokens_to_ids(STOPS)
    teachers = [
        {
            "name": "here",
            "model": {"path": str(model), "dtype": "float32", "stop": STOPS},
            "temperature": 1.0,
            "max_response_tokens": 12,
        },
        {
            "name": "served",
            "endpoint": {"url": url, "model": "big", "extra_body": {"stop_token_ids": stops}},
            "temperature": 1.0,
            "max_response_tokens": 12,
        },
    ]
    mixed = build(
        teachers=teachers,
        student={"path": str(model)},
        compositions={},
        record_logprobs=True,
        rollout={"type": "vllm", "kv_cache_gib": 0.25},
    )
    mixed()
    summary = mixed.summary["teachers"]
    assert {name: teacher["answers"] for name, teacher in summary.items()} == {"here": 30, "served": 30}
    assert all(teacher["kept"] > 0 and teacher["tokens"] > 0 for teacher in summary.values())
    assert summary["served"]["prompt_tokens"] == summary["here"]["prompt_tokens"] > 0
    again = build(teachers=teachers[1:], student={"path": str(model)}, compositions={})
    again()
    texts = [[path.read_bytes() for path in found.shards("served")] for found in (mixed, again)]
    assert texts[0] == texts[1]
