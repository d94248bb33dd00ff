"""The `vllm` rollout on two real ranks, started by torch's launcher."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins.vllm.conftest import needs_vllm, own_environment

pytestmark = [needs_vllm, pytest.mark.process]

ROOT = Path(__file__).parents[3]


def test_an_engine_a_rank_and_an_engine_of_two_ranks(tied_model):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    found = subprocess.run(
        [*command, "-m", "tests.plugins.vllm.two_ranks", str(tied_model)],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
        env=own_environment(),
    )
    assert found.returncode == 0, found.stderr[-4000:]
    assert "OK" in found.stdout.splitlines()
