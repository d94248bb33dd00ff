"""The JSON Schema, and the contract's keys in it."""

from typing import Any

import pytest

from ampo_core.config.jobs import JOBS
from ampo_core.config.schema import SchemaView, config_schema
from ampo_core.config.yaml_source import parse_yaml

CONTRACT = """
job: train
run: {name: ampo-qwen2.5-7b, dir: runs, seed: 0}
model: {path: Qwen/Qwen2.5-7B-Instruct, dtype: bfloat16, gradient_checkpointing: true, lora: null, chat_template: null, chat_template_options: {}, stop: []}
data: {train: [data/openr1_math_4longcots.parquet], max_prompt_tokens: 1024, overlong_prompts: drop, system_prompt: keep, shuffle: true, weights: null}
rollout: {type: vllm, group_size: 8, temperature: 1.0, max_response_tokens: 8192}
reward: {type: math_verify, format_weight: 0.1, timeout_s: 5, workers: auto, max_error_rate: 0.01, repetition_penalty: null, overlong_penalty: null}
guidance:
  threshold: 0.6
  trigger: adaptive
  teacher_pool: {type: dataset, teachers: null}
  selector: {type: comprehension, mean: geometric, rank_format_weight: 0.0, score_rounding: null, ties: shorter}
  replacements: 2
  teacher_reward: verified
objective:
  scope: group
  advantage: {type: group_normalized, ddof: 0, zero_without_correct: false}
  on_policy: {aggregator: token, loss: {type: clip, low: 0.2, high: 0.2, dual: null, log_ratio_clamp: null}, weight: unit, mask_truncated: false, importance_cap: null}
  off_policy: {aggregator: seq, loss: {type: shaped, shaping: {type: ratio, gamma: 0.1}, clip: null, behaviour_policy: one}, weight: unit}
  entropy_coefficient: 0.001
  kl: null
  group_filter: null
training: {steps: 500, questions_per_batch: 128, questions_per_minibatch: 64, epochs_per_batch: 1, tokens_per_microbatch: 18432, learning_rate: 1.0e-6, schedule: constant, warmup_steps: 0, betas: [0.9, 0.999], weight_decay: 0.1, grad_clip: 1.0}
deepspeed: {zero_stage: 3, offload_optimizer: none, offload_parameters: none}
checkpoint: {every: 50, keep: 2, best: eval/macro/avg}
resources: {nodes: 1, hostfile: null, threads: null}
tracking: [tensorboard]
"""  # noqa: E501


def test_the_contracts_keys_are_there_and_its_values_are_the_defaults(load):
    node, _ = parse_yaml(CONTRACT, "contract")
    expected = node.plain()
    least = "job: train\nmodel: {path: Qwen/Qwen2.5-7B-Instruct}\ndata: {train: [data/openr1_math_4longcots.parquet]}\n"
    found = load(least, "run.name=ampo-qwen2.5-7b").data
    for path, value in leaves(expected):
        inner: Any = found
        for key in path:
            inner = inner[key]
        assert inner == value or (isinstance(inner, dict) and inner["type"] == value), path


def leaves(value, path=()):
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif path != ("tracking",):
        yield path, value


def references(value):
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_every_reference_of_the_schema_resolves(plugins):
    schema = config_schema(plugins.catalog)
    assert set(references(schema)) <= {f"#/$defs/{name}" for name in schema["$defs"]}
    assert len(schema["anyOf"]) == len(JOBS)


def test_a_component_is_a_name_or_an_object_with_its_type(plugins):
    definitions = config_schema(plugins.catalog)["$defs"]
    names, *objects = definitions["component-selector"]["anyOf"]
    assert set(names["enum"]) >= {"comprehension", "length", "random"}
    blocks = {block["properties"]["type"]["const"]: block for block in (definitions[o["$ref"][8:]] for o in objects)}
    assert set(blocks) == set(names["enum"])
    assert blocks["length"]["required"] == ["type"]
    assert blocks["length"]["properties"]["prefer"]["enum"] == ["short", "long"]
    assert blocks["length"]["additionalProperties"] is False


def test_the_schema_is_valid_and_accepts_resolved_configs(plugins, load):
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not a dependency of AMPO")
    schema = config_schema(plugins.catalog)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(load().data)
    assert not validator.is_valid({**load().data, "unknown": 1})


@pytest.mark.parametrize("name", JOBS)
def test_every_key_is_described(name, plugins):
    view = SchemaView(JOBS[name], plugins.catalog)

    def blank(schema, path):
        for key, value in view.resolve(schema).get("properties", {}).items():
            resolved = view.resolve(value)
            if key not in ("job", "type") and not resolved.get("description"):
                yield f"{path}{key}"
            for leaf in view.variants(value):
                if "title" in leaf and view.component(value) is None:
                    yield from blank(leaf, f"{path}{key}.")

    assert list(blank(view.root, "")) == []
