"""What keeps a valid config from running: components, files."""

import sys

import pytest

MISSING = {
    "stage": (
        "model.path=${stages.a.out}",
        "model.path: ${stages.a.out} is filled in by a pipeline or suite; run that instead",
    ),
    "data": ("data.train=[nothing.parquet]", "data.train.0: there is no nothing.parquet"),
    "set": ("evaluation={sets: {a: {path: no.parquet}}}", "evaluation.sets.a.path: there is no no.parquet"),
    "model": ("model.path=./nowhere", "model.path: there is no model folder ./nowhere"),
    "model in a folder that is here": (
        "model.path=model/nowhere",
        "model.path: there is no model folder model/nowhere",
    ),
    "model without config": ("model.path=.", "model.path: . is no Hugging Face model: it has no config.json"),
    "hub name offline": ("model.path=owner/name", "nor is it in the Hugging Face cache (HF_HUB_OFFLINE is set)"),
    "chat template": ("model.chat_template=no.jinja", "model.chat_template: there is no file no.jinja"),
}


@pytest.mark.parametrize(("override", "said"), MISSING.values(), ids=MISSING.keys())
def test_files_that_are_not_there(load, override, said):
    loaded = load("", override)
    assert [said in text for text in loaded.blockers] == [True]


def test_a_hub_name_is_a_warning_online_and_nothing_once_cached(load, folder, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    loaded = load("", "model.path=owner/name")
    assert loaded.blockers == ()
    assert "owner/name is not on this machine; a run would download it" in loaded.warnings[0]
    snapshot = folder / "hub" / "models--owner--name" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").touch()
    assert load("", "model.path=owner/name").warnings == ()


def test_a_package_that_a_component_needs(load, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert "tracking.0: the package wandb is not installed" in load("tracking: [wandb]\n").blockers[0]


def test_the_vllm_rollout_needs_vllm(load, monkeypatch):
    from ampo_plugins.rollouts.vllm import spec as vllm

    override = "rollout={type: vllm, group_size: 4, max_response_tokens: 32}"
    monkeypatch.setattr(vllm, "find_spec", lambda name: None)
    assert "rollout: vLLM is not installed here" in load("", override).blockers[0]
    monkeypatch.setattr(vllm, "find_spec", lambda name: object())
    assert load("", override).blockers == ()


def test_a_ready_config_has_no_blockers(load):
    load().require_ready()
