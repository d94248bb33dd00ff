"""Every file of configs/ is valid, and says what its name promises."""

import os
from pathlib import Path

import pytest

from ampo_core.config.load import load_config

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml"))


@pytest.fixture(autouse=True)
def root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", CONFIGS)
def test_it_is_valid_and_its_resolved_form_too(path, plugins, tmp_path):
    loaded = load_config(path, (), plugins)
    again = tmp_path / "again.yaml"
    again.write_text(loaded.yaml, encoding="utf-8")
    assert load_config(again, (), plugins).data == loaded.data


def test_there_are_presets_and_baselines():
    names = {os.path.splitext(path.removeprefix("configs/"))[0] for path in CONFIGS}
    baselines = {f"baselines/{name}" for name in ("grpo", "dr_grpo", "dapo", "luffy", "sft", "sft_then_grpo")}
    assert names >= {"presets/paper", "presets/released", "paper/qwen2.5-7b"} | baselines


def differences(one, other, path=()):
    if isinstance(one, dict) and isinstance(other, dict) and one.get("type") == other.get("type"):
        for key in {**one, **other}:
            yield from differences(one.get(key), other.get(key), (*path, key))
    elif one != other:
        yield ".".join(path)


def test_the_presets_differ_in_the_documented_options_alone(plugins):
    paper, released = (load_config(f"configs/presets/{name}.yaml", (), plugins).data for name in ("paper", "released"))
    assert set(differences(paper, released)) == {
        "run.name",
        "data.overlong_prompts",
        "reward.repetition_penalty",
        "reward.normalise",
        "reward.exact_numbers",
        "reward.one_answer",
        "reward.skip_thoughts",
        "guidance.selector.mean",
        "guidance.selector.rank_format_weight",
        "guidance.selector.score_rounding",
        "guidance.selector.ties",
        "guidance.teacher_reward",
        "objective.scope",
        "objective.advantage",
        "objective.on_policy.aggregator",
        "objective.on_policy.loss.dual",
        "objective.on_policy.loss.log_ratio_clamp",
        "objective.off_policy.aggregator",
    }


def test_the_paper_preset_is_the_default(plugins, tmp_path):
    paper = load_config("configs/presets/paper.yaml", (), plugins).data
    least = tmp_path / "least.yaml"
    least.write_text("job: train\nmodel: {path: x}\ndata: {train: [x]}\n")
    default = load_config(least, (), plugins).data
    assert set(differences(paper, default)) == {"run.name", "model.path", "data.train"}


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("grpo", {"run.name", "guidance"}),
        ("dr_grpo", {"run.name", "guidance", "objective.advantage", "objective.on_policy.aggregator"}),
    ],
)
def test_a_baseline_differs_from_the_papers_run_where_it_should(name, changed, plugins):
    paper = load_config("configs/paper/qwen2.5-7b.yaml", (), plugins).data
    assert set(differences(paper, load_config(f"configs/baselines/{name}.yaml", (), plugins).data)) == changed
