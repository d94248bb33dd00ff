"""This side of the judge `vllm`, against processes that fail; tests/plugins/vllm has the real one."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest
from ampo_plugins.judges import vllm_process
from ampo_plugins.judges.vllm_process import VllmProcess, own_environment
from ampo_registry import ConfigError, JudgeRequest, RunError, TokenIds

pytestmark = pytest.mark.process
REQUEST = JudgeRequest(TokenIds([1]), TokenIds([2, 3]))


def process(monkeypatch: pytest.MonkeyPatch, body: str, seconds: float = 30.0) -> VllmProcess:
    """One whose other side does `body` with `ask()` and `answer(message, *data)`."""
    lines = [
        "import sys, time, struct",
        "from ampo_plugins.judges.frames import receive, send",
        "ask = lambda: receive(sys.stdin.buffer)",
        "answer = lambda message, *data: send(sys.stdout.buffer, message, data)",
        "ask()",
        body,
    ]
    monkeypatch.setattr(vllm_process, "WORKER", (sys.executable, "-c", "\n".join(lines)))
    return VllmProcess("judges.big", {}, seconds)


@pytest.mark.parametrize(
    ("body", "seconds", "error", "text"),
    [
        ("answer({'refused': 'no such model'})", 30.0, ConfigError, "no such model$"),
        ("answer({'failed': 'MemoryError: x'})", 30.0, RunError, "its vLLM failed: MemoryError: x"),
        ("sys.exit('out of memory')", 30.0, RunError, r"its vLLM process has ended \(exit code 1\):\n  out of memory$"),
        ("sys.stdout.write('{'); sys.stdout.flush()", 30.0, RunError, r"its vLLM process has ended \(exit code 0\):$"),
        ("ask()", 0.2, RunError, r"its vLLM is not up after 0\.2 s:"),
    ],
    ids=["refused", "failed", "ended", "half a message", "not up"],
)
def test_a_start_that_fails_says_why_and_leaves_nothing(
    body: str, seconds: float, error: Any, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    begin = VllmProcess._begin
    monkeypatch.setattr(VllmProcess, "_begin", lambda self, *rest: (started.append(self), begin(self, *rest)))
    with pytest.raises(error, match=rf"^judges\.big: {text}"):
        process(monkeypatch, body, seconds)
    assert started[0]._process.returncode is not None


def test_a_process_that_ends_while_it_is_asked_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = process(monkeypatch, "answer({}); ask(); print('bad news', file=sys.stderr); sys.exit(3)")
    with pytest.raises(RunError, match=r"^judges\.big: its vLLM process has ended \(exit code 3\):\n  bad news$"):
        found.logprobs([REQUEST], 1.0)
    found.close()


def test_one_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_process, "ENDING_S", 0.2)
    found = process(monkeypatch, "answer({}); time.sleep(60)")
    begun = time.monotonic()
    found.close()
    assert time.monotonic() - begun < 10
    assert found._process.returncode == -9


def test_ids_go_out_and_log_probs_come_back_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    body = (
        "answer({})\nmessage, data = ask()\n"
        "assert message == {'starts': [1, 2], 'temperature': 0.5}, message\n"
        "assert [struct.unpack(f'{len(x) // 4}i', x) for x in data] == [(1, 2, 3), (9, 8, 7)]\n"
        "answer({}, struct.pack('2f', -0.1, -2.5), struct.pack('f', -1e-30))\nask()"
    )
    found = process(monkeypatch, body)
    asked = [REQUEST, JudgeRequest(TokenIds([9, 8]), TokenIds([7]))]
    assert [list(one) for one in found.logprobs(asked, 0.5)] == [pytest.approx([-0.1, -2.5]), pytest.approx([-1e-30])]
    found.close()


def test_a_process_of_its_own_is_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 6")
    assert not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "TORCHELASTIC_RUN_ID"} & own_environment().keys()
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 1)
    assert own_environment()["CUDA_VISIBLE_DEVICES"] == "6"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert own_environment()["CUDA_VISIBLE_DEVICES"] == "1"
