"""Prompts and responses that a model has no positions for are refused while only its config.json is looked at."""

import json

import pytest
from ampo_registry import ConfigError

from ampo_core.config.positions import positions_in, require_room

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
CONFIGS = {
    "plain": ({"max_position_embeddings": 40}, 40),
    "GPT-2": ({"n_positions": 40}, 40),
    "OPT": ({"model_type": "opt", "max_position_embeddings": 40}, 40),
    "inside": ({"text_config": {"max_position_embeddings": 40}}, 40),
    "Llama 3.1: the number is the scaled one": (
        {
            "max_position_embeddings": 131072,
            "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
        },
        131072,
    ),
    "yarn beside the first number": ({"max_position_embeddings": 32, "rope_scaling": YARN}, 128),
    "yarn in the number": ({"max_position_embeddings": 128, "rope_scaling": YARN}, 128),
    "yarn, as older files call it": (
        {"max_position_embeddings": 32, "rope_scaling": {"type": "yarn", "factor": 4.0}},
        128,
    ),
    "linear": ({"max_position_embeddings": 32, "rope_scaling": {"type": "linear", "factor": 2}}, 64),
    "for each kind of layer": ({"max_position_embeddings": 32, "rope_parameters": {"full": YARN, "sliding": {}}}, 128),
    "no scaling": ({"max_position_embeddings": 32, "rope_scaling": None, "rope_parameters": {"rope_theta": 1e4}}, 32),
    "no limit": ({"model_type": "mamba"}, None),
    "nonsense": ({"max_position_embeddings": -1, "rope_scaling": [1]}, None),
}


@pytest.mark.parametrize(("config", "positions"), CONFIGS.values(), ids=CONFIGS.keys())
def test_positions_of_a_config(config, positions):
    assert positions_in(config) == positions


@pytest.fixture
def positions(folder):
    def write(count, model="model"):
        (folder / model).mkdir(exist_ok=True)
        (folder / model / "config.json").write_text(json.dumps({"max_position_embeddings": count}))

    return write


def test_train_is_refused_by_its_limits(load, positions):
    positions(48)
    assert load().warnings == ()
    positions(47)
    with pytest.raises(ConfigError) as refused:
        load("rollout: {max_response_tokens: 32}\n")
    assert str(refused.value) == (
        "c.yaml:2: rollout.max_response_tokens: the model model has 47 positions; found 48 tokens: "
        "data.max_prompt_tokens 16 + rollout.max_response_tokens 32"
    )
    positions(60)
    with pytest.raises(
        ConfigError, match=r"evaluation\.max_response_tokens: the model model has 60 positions; found 66"
    ):
        load("evaluation: {max_response_tokens: 50, sets: {a: {path: train.parquet}}}\n")


def test_a_limit_of_prompts_that_nobody_wrote_refuses_nothing(folder, load, positions):
    (folder / "base.yaml").write_text((folder / "base.yaml").read_text().replace(", max_prompt_tokens: 16", ""))
    positions(48)
    load("training: {tokens_per_microbatch: 2048}\n")
    with pytest.raises(ConfigError, match=r"found 49 tokens: rollout\.max_response_tokens 48 and a prompt"):
        load("training: {tokens_per_microbatch: 2048}\n", "rollout.max_response_tokens=48")


def test_prompts_as_they_are_decide_when_the_run_starts():
    require_room(48, 16, 32, "rollout.max_response_tokens")
    require_room(None, 16, 32, "rollout.max_response_tokens")
    with pytest.raises(ConfigError, match=r"^rollout\.max_response_tokens: found 32; .* 48 positions: at most 31$"):
        require_room(48, 17, 32, "rollout.max_response_tokens")


def test_each_model_of_an_evaluation_is_looked_at(load, positions):
    text = (
        "job: evaluate\nmodels: {a: {path: model}, b: {path: small}}\ndata: {max_prompt_tokens: 16}\n"
        "rollout: {type: transformers, max_response_tokens: 32}\nevaluation: {sets: {s: {path: train.parquet}}}\n"
    )
    positions(48)
    positions(40, "small")
    with pytest.raises(ConfigError, match=r"rollout\.max_response_tokens: the model small has 40 positions"):
        load(text)
    with pytest.raises(ConfigError, match=r"evaluation\.max_response_tokens: the model small has 40"):
        load(text, "evaluation.max_response_tokens=25")
    assert load(text, "evaluation.max_response_tokens=24").warnings == ()


def test_sft_is_told_and_a_teacher_without_room_is_refused(load, positions):
    positions(40)
    sft = "job: sft\nmodel: {path: model}\ndata: {train: [train.parquet], max_tokens: %d}\n"
    assert load(sft % 40).warnings == load(sft.replace(", max_tokens: %d", "")).warnings == ()
    (warning,) = load(sft % 41).warnings
    assert "data.max_tokens: the model model has 40 positions; found 41 tokens" in warning
    pool = (
        "job: pool\nquestions: [train.parquet]\nstudent: {path: model}\nrollout: transformers\n"
        "teachers: [{name: t, model: {path: model}, max_response_tokens: %d}]\n"
    )
    load(pool % 39)
    with pytest.raises(ConfigError, match=r"teachers\.0\.max_response_tokens: the model model has 40 positions"):
        load(pool % 40)
