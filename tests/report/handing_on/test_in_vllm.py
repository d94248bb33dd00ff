"""`policy/` opens in vLLM, which is not told anything but the folder: same prompt, same greedy response."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ampo_registry import Message

from ampo_core.config.tree import ModelConfig
from ampo_core.data.tokens import load_tokenizer
from tests.plugins.vllm.conftest import needs_vllm, own_environment
from tests.report.handing_on.conftest import OPTIONS, Handed
from tests.report.handing_on.test_page import POLICY, shell_lines

pytestmark = [needs_vllm, pytest.mark.process]

WORKER = Path(__file__).with_name("vllm_worker.py")
MESSAGES = [{"role": "user", "content": "2+3="}]
TOKENS = 12


@pytest.fixture(scope="module")
def answers(guided: Handed, sft: Handed, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What vLLM makes of each policy, and of the page's and a card's `vllm serve`; it is imported once for all."""
    folder = tmp_path_factory.mktemp("vllm")
    wanted = {"guided": (guided, OPTIONS), "sft": (sft, {})}
    requests = [
        {"model": str(handed.policy), "messages": MESSAGES, "chat_template_kwargs": options, "max_tokens": TOKENS}
        for handed, options in wanted.values()
    ]
    (folder / "request.json").write_text(json.dumps({"chats": requests, "serve": serve_arguments(guided)}))
    done = subprocess.run(
        [sys.executable, str(WORKER), str(folder / "request.json"), str(folder / "answer.json")],
        # a compiler for one function of the sampler would take longer than the test
        env={
            **own_environment(),
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_NO_USAGE_STATS": "1",
            "TORCHDYNAMO_DISABLE": "1",
        },
        capture_output=True,
        text=True,
        timeout=1800,  # a guard only: a busy machine takes minutes
    )
    assert done.returncode == 0, done.stderr[-4000:]
    answer = json.loads((folder / "answer.json").read_text())
    return {**dict(zip(wanted, answer["chats"], strict=True)), "serve": answer["serve"]}


def serve_arguments(handed: Handed) -> list[list[str]]:
    """What follows `vllm serve` in the page, and last in the card of `handed`."""
    card = (handed.policy / "README.md").read_text()
    lines = [*shell_lines("vllm serve"), *(line for line in card.splitlines() if line.startswith("vllm serve"))]
    return [shlex.split(line)[2:] for line in lines]


@pytest.mark.parametrize("name", ["guided", "sft"])
def test_vllm_answers_as_transformers_does(name: str, answers: dict[str, Any], request: pytest.FixtureRequest) -> None:
    from transformers import AutoModelForCausalLM

    handed: Handed = request.getfixturevalue(name)
    found = answers[name]
    tokenizer = load_tokenizer(ModelConfig(**handed.config["model"]))
    assert found["prompt"] == tokenizer.prompt_ids([Message("user", "2+3=")])
    model = AutoModelForCausalLM.from_pretrained(handed.policy)
    with torch.no_grad():
        greedy = model.generate(
            torch.tensor([found["prompt"]]), max_new_tokens=TOKENS, do_sample=False, top_k=None, temperature=None
        )
    assert found["tokens"] == greedy[0, len(found["prompt"]) :].tolist()
    # of bytes that are no whole character yet vLLM says nothing
    assert found["text"]
    assert tokenizer.decode(found["tokens"]).startswith(found["text"])
    ended = found["tokens"][-1] in tokenizer.stop_token_ids
    assert found["finish_reason"] == ("stop" if ended else "length")


def test_vllm_reads_stop_tokens_and_options(answers: dict[str, Any], guided: Handed) -> None:
    stops = load_tokenizer(ModelConfig(**guided.config["model"])).stop_token_ids
    assert len(stops) == 2
    assert answers["guided"]["eos_token_id"] == list(stops)
    assert answers["sft"]["defaults"] == {"temperature": 0.7, "top_k": 20}
    assert answers["guided"]["defaults"]["temperature"] == 1.0


def test_vllm_serve_takes_the_options_of_page_and_card(answers: dict[str, Any]) -> None:
    *page, card = answers["serve"]
    assert {found["model_tag"] for found in page} == {POLICY}
    assert page[1]["default_chat_template_kwargs"] == {"enable_thinking": False}
    assert page[2]["override_generation_config"]["repetition_penalty"] == 1.0
    assert (card["dtype"], card["default_chat_template_kwargs"]) == ("float32", OPTIONS)
