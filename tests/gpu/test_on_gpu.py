"""What only a GPU can show; skipped where there is none. Run with `make test-gpu`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from ampo_core.learner.attention import Sequences, packed_attention

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and torch finds none"),
]
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2 with heads of 64, which GPU kernels take: two layers, tied embeddings."""
    sys.path.insert(0, str(HERE.parents[1] / "benchmarks"))
    from gpu.world import REHEARSAL, write_model

    folder = tmp_path_factory.mktemp("gpu") / "model"
    write_model(folder, REHEARSAL, "cpu")
    return folder


def run(script: str, *arguments: str, cuda: bool = True) -> dict[str, Any]:
    """The JSON that `script` printed: each needs a process of its own, for the device is chosen once."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if not cuda:
        environment |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(
        [sys.executable, HERE / script, *arguments], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(
        next(line for line in reversed(done.stdout.splitlines()) if line.startswith("{"))
    )
    return found


@pytest.mark.parametrize(("dtype", "stage", "tolerance"), [("float32", "0", 1e-3), ("bfloat16", "2", 0.1)])
def test_updates_on_a_gpu_are_those_of_a_cpu(model: Path, dtype: str, stage: str, tolerance: float) -> None:
    here, there = (run("run_updates.py", str(model), dtype, stage, cuda=cuda) for cuda in (True, False))
    assert (here["device"], there["device"]) == ("cuda", "cpu")
    assert here["norms"] == pytest.approx(there["norms"], rel=tolerance)
    assert here["before"] == pytest.approx(there["before"], abs=tolerance)
    assert here["after"] == pytest.approx(there["after"], abs=tolerance)
    assert here["after"] != pytest.approx(here["before"], abs=tolerance)


@pytest.mark.parametrize("window", [None, 20])
def test_half_precision_attention_is_that_of_single_precision(window: int | None) -> None:
    """bfloat16 goes through PyTorch's varlen kernel, float32 through one SDPA call for each length."""
    torch.manual_seed(0)
    lengths = (70, 33, 33, 1)
    device = torch.device("cuda")
    sequences = Sequences.of(lengths, device)
    shapes = [(1, heads, sum(lengths), 64) for heads in (4, 2, 2)]
    exact = [torch.randn(shape, device=device).bfloat16().float().requires_grad_() for shape in shapes]
    half = [tensor.detach().bfloat16().requires_grad_() for tensor in exact]
    slope = torch.randn(1, sum(lengths), 4, 64, device=device)
    outputs = []
    for tensors in (exact, half):
        found, _ = packed_attention(torch.nn.Module(), *tensors, None, sliding_window=window, sequences=sequences)
        (found.float() * slope).sum().backward()
        outputs.append(found.float())
    torch.testing.assert_close(outputs[1], outputs[0], atol=2e-2, rtol=2e-2)
    for rough, fine in zip(half, exact, strict=True):
        assert rough.grad is not None
        assert fine.grad is not None
        torch.testing.assert_close(rough.grad.float(), fine.grad, atol=6e-2, rtol=6e-2)


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllm_has_the_weights_after_a_sync_and_sleeps(model: Path) -> None:
    found = run("run_sync.py", str(model))
    before, stale, synced = found["gaps"]
    assert before < 0.03
    assert synced < 0.03
    assert stale > 3 * max(before, synced)
    assert found["versions"] == [1]
    assert found["freed"] > 2**29
