"""`run_steps`: real steps in seconds, with what a test brings."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest
import yaml
from ampo_registry import (
    ConfigError,
    PluginError,
    ScoringSelectorSpec,
    SelectionContext,
    SelectionRequest,
)

from ampo_core.testing import run_steps, tiny_world
from ampo_core.testing.world import CLOSE, DIGITS, END, OPEN, tiny_tokenizer, transitions


class Longest(ScoringSelectorSpec):
    """The longest answer."""

    type: Literal["longest"] = "longest"

    def score(self, requests: Sequence[SelectionRequest], context: SelectionContext) -> list[list[float]]:
        return [[float(len(candidate.token_ids)) for candidate in request.candidates] for request in requests]


@pytest.mark.process
def test_a_spec_of_the_test_chooses_and_the_same_seed_gives_the_same(tmp_path: Path) -> None:
    config = {"guidance": {"selector": "longest", "trigger": "always", "replacements": 1}}
    done = run_steps(config, steps=3, plugins=[Longest], folder=tmp_path)
    assert [line["step"] for line in done.metrics] == [1, 2, 3]
    assert {sample["teacher"] for sample in done.samples} == {None, "wordy"}
    assert any(0 < line["reward/accuracy"] < 1 for line in done.metrics)
    assert done.folder == tmp_path / "run"
    assert (done.policy / "model.safetensors").is_file()
    assert "train 3/3" in done.said
    again = run_steps(config, steps=3, plugins=[Longest])
    times = [{name: line[name] for name in line if not name.startswith("time/")} for line in done.metrics]
    assert [{name: line[name] for name in times[0]} for line in again.metrics] == times


class Nameless(ScoringSelectorSpec):
    """It has no name."""


def test_a_plugin_that_is_broken_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="Nameless has no name"):
        run_steps(plugins=[Nameless])
    file = tmp_path / "broken_for_steps.py"
    file.write_text("import nothing_of_that_name\n")
    with pytest.raises(PluginError, match=r"broken_for_steps of .*cannot be imported"):
        run_steps(plugins=[file])


def test_a_config_that_is_wrong_is_refused_as_in_a_run() -> None:
    with pytest.raises(ConfigError, match="no selector is named 'lenght'; did you mean length"):
        run_steps({"guidance": {"selector": "lenght"}})
    with pytest.raises(ConfigError, match="run_steps runs a train job, found job: sft"):
        run_steps({"job": "sft"})


def test_a_process_that_imports_the_script_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(RuntimeError, match="outside `if __name__"):
        run_steps()


def test_the_tiny_model_writes_what_its_table_says() -> None:
    tokenizer = tiny_tokenizer()
    table, vocabulary = transitions(tokenizer), tokenizer.get_vocab()
    assert table.sum(dim=1).allclose(table.new_ones(len(table)))
    assert float(table.min()) > 0
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_world().model)
    ids = tokenizer.encode(f"so {OPEN}2{CLOSE}{END}")
    log_probs = model(input_ids=table.new_tensor([ids]).long()).logits[0].log_softmax(-1)
    assert log_probs.exp().detach().allclose(table[ids], atol=1e-4)
    assert [vocabulary[tag] for tag in (OPEN, "2", CLOSE, END)] == ids[-4:]
    assert set(DIGITS) <= vocabulary.keys()
    text = "Δx → <answer>½</answer> 日本"
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.process
def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    """pytest imports it in every session."""
    heavy = ("torch", "pydantic", "yaml", "rich", "ampo_registry", "pluggy")
    code = f"import sys, ampo_core.testing; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.process
def test_of_a_config_file_what_is_large_is_left_out(tmp_path: Path) -> None:
    config = tmp_path / "large.yaml"
    config.write_text(
        "job: train\nmodel: {path: some/model}\ndata: {train: [a.csv, b.csv], layout: trl, weights: [1.0, 2.0]}\n"
        "objective: {on_policy: {loss: gspo, aggregator: seq}}\nguidance: null\nresources: {devices: 8}\n"
        "evaluation: {every: 1, sets: {s: {path: held.csv}}}\n"
    )
    done = run_steps(config, steps=1, overrides=["training.learning_rate=0.0"])
    resolved = yaml.safe_load((done.folder / "config.yaml").read_text("utf-8"))
    assert resolved["objective"]["on_policy"]["loss"]["type"] == "gspo"
    assert resolved["training"]["learning_rate"] == 0.0
    assert resolved["data"]["train"] == [str(tiny_world().train)]
    assert resolved["evaluation"] is None
    assert "guidance/triggered" not in done.metrics[0]
