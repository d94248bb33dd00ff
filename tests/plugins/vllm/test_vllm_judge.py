"""The judge `vllm` for real: its log-probs are the learner's, and its process ends with whoever started it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ampo_plugins.judges.vllm import VllmJudge
from ampo_plugins.judges.vllm_worker import Engine
from ampo_registry import BuildContext, ConfigError, JudgeRequest, RunError, TokenIds
from ampo_registry import testing as kit

from ampo_core.learner.frozen import FrozenModel
from tests.plugins.judges.conftest import largest_gap, requests
from tests.plugins.vllm.conftest import needs_vllm, own_environment

pytestmark = [needs_vllm, pytest.mark.process, pytest.mark.slow]
LONGEST = JudgeRequest(TokenIds(range(2, 62)), TokenIds([7, 9] * 226))


def context_of(tokenizer: Any) -> BuildContext:
    return BuildContext(tokenizer=tokenizer, dtype="float32", longest=512, place="judges.big")


@pytest.fixture(scope="module")
def judge(tied_model: Path, golden_tokenizer: Any) -> Iterator[Any]:
    """One engine for all tests: starting one takes seconds."""
    spec = VllmJudge(path=str(tied_model), kv_cache_gib=0.25, tokens_per_microbatch=256)
    found: Any = spec.build(context_of(golden_tokenizer))
    yield found
    found.close()


def test_it_agrees_with_the_transformers_judge_at_any_temperature(judge: Any, tied_model: Path) -> None:
    other = FrozenModel(str(tied_model), "float32", torch.device("cpu"), 1024, key="judges.other.path")
    asked = [LONGEST, *requests(20)]
    for temperature in (1.0, 0.6, 1.4, 1.0):
        found = judge.logprobs(asked, temperature)
        assert largest_gap(found, other.logprobs(asked, temperature)) < 1e-4


def test_it_keeps_the_contract(judge: Any, tied_model: Path, golden_tokenizer: Any) -> None:
    class Running(VllmJudge):
        """The engine that runs already."""

        def build(self, context: BuildContext) -> Any:
            return Asleep(judge)

    class Asleep:
        """Leaves it running at the end."""

        def __init__(self, judge: Any) -> None:
            self.logprobs, self.sleep = judge.logprobs, judge.sleep

    kit.check_judge(Running(path=str(tied_model)), context_of(golden_tokenizer))
    assert judge.logprobs(requests(1), 1.0)


def test_what_cannot_be_judged_ends_it_with_its_reason(tied_model: Path, golden_tokenizer: Any, judge: Any) -> None:
    too_long = JudgeRequest(LONGEST.prompt_token_ids, LONGEST.token_ids + TokenIds([7] * 9))
    with pytest.raises(RunError, match=r"^judges\.big: its vLLM failed: .* 521 input tokens.*\n"):
        judge.logprobs([too_long], 1.0)
    with pytest.raises(RunError, match=r"^judges\.big: its vLLM process has ended \(exit code 1\):"):
        judge.logprobs(requests(1), 1.0)


PARENT = """
import sys
from ampo_plugins.judges.vllm_process import VllmProcess

class Loud(VllmProcess):
    def _begin(self, options, seconds):
        print(self._process.pid, flush=True)
        super()._begin(options, seconds)

Loud("judges.big", {"path": sys.argv[1]}, 60.0)
"""


def gone(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_no_process_stays_behind_a_run_that_is_killed(tied_model: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tied_model)]
    parent = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=own_environment(), text=True
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    time.sleep(0.5)
    parent.kill()
    parent.wait(30)
    assert gone(worker, 30)


def test_a_model_that_it_cannot_take_is_refused(tiny_model: Path) -> None:
    options = {"path": str(tiny_model), "trust_remote_code": False, "seed": 0}
    with pytest.raises(
        ConfigError, match=r"^on a CPU it takes no attention heads of 8 .*\. Use the judge transformers$"
    ):
        Engine(options)
