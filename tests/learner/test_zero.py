"""DeepSpeed for real, with one and with two processes: the ZeRO stage and the number of ranks change nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ampo_registry import ConfigError

from ampo_core.config.tree import DeepSpeedConfig
from ampo_core.learner.deepspeed_engine import check_version
from tests.forge import own_environment

pytestmark = pytest.mark.process

WORKER = Path(__file__).parent / "zero_worker.py"
FLOAT32 = ("zero0", "zero1", "zero2", "zero3", "zero2_offload", "zero3_offload")
BFLOAT16 = ("zero1_bf16", "zero2_bf16", "zero3_bf16")


def launched(ranks: int, *arguments: str) -> None:
    """Run the worker on so many ranks; fails with its output."""
    environment = own_environment(PYTHONWARNINGS="ignore")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    command = [sys.executable, *(launcher if ranks > 1 else [])]
    found = subprocess.run(
        [*command, str(WORKER), *arguments], env=environment, capture_output=True, text=True, timeout=600
    )
    assert found.returncode == 0, found.stderr[-4000:]


@pytest.fixture(scope="module")
def results(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Number of ranks -> folder with what came out of each case."""
    folders = {ranks: tmp_path_factory.mktemp(f"ranks{ranks}") for ranks in (1, 2)}
    for ranks, folder in folders.items():
        launched(ranks, str(tiny_model), str(folder))
    return folders


def result(results: dict[int, Path], ranks: int, case: str) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(results[ranks] / f"{case}.pt", weights_only=True)
    return found


def check_same(found: dict[str, Any], expected: dict[str, Any], *, relative: float, absolute: float) -> None:
    for mine, other in zip(found["steps"], expected["steps"], strict=True):
        assert mine == pytest.approx(other, rel=relative)
    torch.testing.assert_close(torch.tensor(found["scores"]), torch.tensor(expected["scores"]), rtol=relative, atol=0)
    assert found["weights"].keys() == expected["weights"].keys()
    for name, value in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], value, rtol=relative, atol=absolute, msg=name)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("case", FLOAT32)
def test_every_stage_on_any_number_of_ranks_trains_alike(results: dict[int, Path], case: str, ranks: int) -> None:
    check_same(result(results, ranks, case), result(results, 1, "zero0"), relative=1e-5, absolute=5e-6)


@pytest.mark.parametrize("ranks", [1, 2])
def test_lora_is_merged_on_export(results: dict[int, Path], ranks: int) -> None:
    expected = result(results, 1, "zero0_lora")
    check_same(result(results, ranks, "zero3_lora"), expected, relative=1e-5, absolute=1e-6)
    full = result(results, 1, "zero0")["weights"]
    assert expected["weights"].keys() == full.keys()
    moved = [name for name, value in expected["weights"].items() if "q_proj.weight" in name and value.ne(0).any()]
    assert moved


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("case", ["zero0_lora", "zero3_lora"])
def test_without_its_adapters_a_policy_is_the_start_model(results: dict[int, Path], case: str, ranks: int) -> None:
    found = result(results, ranks, case)
    assert found["reference"] == found["start"]
    assert found["reference"] != found["scores"]


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("case", BFLOAT16)
def test_bfloat16_follows_float32_to_its_precision(results: dict[int, Path], case: str, ranks: int) -> None:
    found, expected = result(results, ranks, case), result(results, 1, "zero0")
    assert {value.dtype for value in found["weights"].values()} == {torch.bfloat16}
    for mine, other in zip(found["steps"], expected["steps"], strict=True):
        assert mine == pytest.approx(other, rel=2e-2)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("case", ["zero3", "zero3_lora", "zero3_bf16"])
def test_a_policy_of_zero_3_opens_in_transformers(results: dict[int, Path], case: str, ranks: int) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = results[ranks] / case / "policy"
    opened = dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters(remove_duplicate=False))
    expected = result(results, ranks, case)["weights"]
    assert opened.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(opened[name].detach(), value, rtol=0, atol=0, msg=name)
    assert AutoTokenizer.from_pretrained(folder).chat_template


def test_a_loss_goes_down(results: dict[int, Path]) -> None:
    losses = [step["loss"] for step in result(results, 2, "zero3")["steps"]]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize(
    ("version", "options", "refused"),
    [
        ("0.18.9", {"zero_stage": 2, "offload_optimizer": "cpu"}, True),
        ("0.15.2", {"zero_stage": 1, "offload_optimizer": "cpu"}, True),
        ("0.18.9", {"zero_stage": 3, "offload_optimizer": "cpu"}, False),
        ("0.18.9", {"zero_stage": 2}, False),
        ("0.19.0", {"zero_stage": 2, "offload_optimizer": "cpu"}, False),
    ],
)
def test_a_deepspeed_that_loses_gradients_is_refused(version: str, options: dict[str, Any], refused: bool) -> None:
    if not refused:
        return check_version(version, DeepSpeedConfig(**options))
    with pytest.raises(ConfigError, match="loses gradients"):
        check_version(version, DeepSpeedConfig(**options))
