"""`policy/` of a checkpoint opens in transformers with weights, tokenizer, chat template and stop tokens of its run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ampo_registry import ConfigError, Message

from ampo_core.config.tree import ModelConfig
from ampo_core.data.tokens import load_tokenizer
from ampo_core.learner.policy import load_policy
from tests.report.handing_on.conftest import OPTIONS, STOP, TEMPLATE, Handed, World

pytestmark = pytest.mark.process

RUNS = ["guided", "sft", "lora", "after_sft"]
TURNS = [{"role": "user", "content": "2+3="}]


@pytest.fixture(params=RUNS)
def handed(request: pytest.FixtureRequest) -> Handed:
    found: Handed = request.getfixturevalue(request.param)
    return found


def opened(policy: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(policy), AutoTokenizer.from_pretrained(policy)


def test_it_holds_what_is_needed_and_nothing_that_is_pickled(handed: Handed) -> None:
    assert sorted(path.name for path in handed.policy.iterdir()) == [
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert not json.loads((handed.policy / "tokenizer_config.json").read_text()).keys() & {"is_local", "name_or_path"}


def test_the_weights_are_the_learner_s(handed: Handed) -> None:
    model, _ = opened(handed.policy)
    found = dict(model.named_parameters(remove_duplicate=False))
    assert found.keys() == handed.weights.keys()
    for name, value in handed.weights.items():
        torch.testing.assert_close(found[name].detach(), value, rtol=0, atol=0)


def test_prompts_are_those_of_the_run(handed: Handed) -> None:
    _, tokenizer = opened(handed.policy)
    config = ModelConfig(**handed.config["model"])
    messages = [Message("user", "2+3=")]
    wanted = load_tokenizer(config).prompt_ids(messages)
    options = config.chat_template_options
    found = tokenizer.apply_chat_template(TURNS, add_generation_prompt=True, return_dict=False, **options)
    assert found == wanted
    # and as the model of another config, which names no template
    again = load_tokenizer(ModelConfig(path=str(handed.policy), chat_template_options=options))
    assert again.prompt_ids(messages) == wanted
    assert set(again.stop_token_ids) == set(load_tokenizer(config).stop_token_ids)


def test_it_generates_up_to_a_stop_token_of_the_run(handed: Handed) -> None:
    model, tokenizer = opened(handed.policy)
    stops = load_tokenizer(ModelConfig(**handed.config["model"])).stop_token_ids
    prompt = tokenizer.apply_chat_template(
        TURNS, add_generation_prompt=True, return_dict=True, return_tensors="pt", **OPTIONS
    )
    start = prompt["input_ids"].shape[1]
    free = model.generate(**prompt, max_new_tokens=6, min_new_tokens=6, do_sample=False)[0, start:].tolist()
    assert len(free) == 6
    assert not set(free) & set(stops)
    # a stop token that is certain to come ends the response at once
    head = model.get_output_embeddings()
    for stop in stops:
        bias = torch.zeros(head.weight.shape[0])
        bias[stop] = 1e4
        hook = head.register_forward_hook(lambda module, inputs, logits, bias=bias: logits + bias)
        assert model.generate(**prompt, max_new_tokens=6, do_sample=False)[0, start:].tolist() == [stop]
        hook.remove()


def test_the_chat_template_and_the_stop_tokens_of_a_config_are_kept(guided: Handed, golden_tokenizer: Any) -> None:
    assert (guided.policy / "chat_template.jinja").read_text() == TEMPLATE
    generation = json.loads((guided.policy / "generation_config.json").read_text())
    eos, stop = golden_tokenizer.eos_token_id, golden_tokenizer.convert_tokens_to_ids(STOP)
    assert generation["eos_token_id"] == [eos, stop]
    assert golden_tokenizer.chat_template != TEMPLATE


def test_sampling_options_of_the_base_stay_and_can_be_written(sft: Handed, handing: World) -> None:
    generation = json.loads((sft.policy / "generation_config.json").read_text())
    assert (generation["temperature"], generation["top_k"], generation["do_sample"]) == (0.7, 20, True)
    assert generation["eos_token_id"] == 2
    path = handing.folder / "untied" / "generation_config.json"
    before = path.read_text()
    path.write_text(json.dumps({"eos_token_id": 2, "length_penalty": 2.0}))
    try:
        with pytest.raises(ConfigError, match=r"generation_config\.json .* cannot be used(.|\n)*length_penalty"):
            load_policy(ModelConfig(path=str(path.parent), dtype="float32"))
    finally:
        path.write_text(before)


def test_policies_can_be_evaluated(handing: World, guided: Handed, lora: Handed, after_sft: Handed) -> None:
    models = {
        "guided": {"path": str(guided.policy), "chat_template_options": OPTIONS},
        "lora": {"path": str(lora.policy)},
        "after_sft": {"path": str(after_sft.policy)},
    }
    questions = str(handing.folder / "questions.jsonl")
    output, _ = handing.job(
        "evaluate",
        {
            "job": "evaluate",
            "models": models,
            "data": {"max_prompt_tokens": 64},
            "rollout": {"type": "transformers", "max_response_tokens": 6},
            "reward": {"type": "math_verify", "workers": 1},
            "evaluation": {"sets": {"toy": {"path": questions, "limit": 2, "samples": 1}}},
        },
    )
    results = json.loads((output / "results.json").read_text())
    assert set(results["models"]) == set(models)
