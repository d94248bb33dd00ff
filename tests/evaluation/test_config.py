"""The options of held-out sets: curves of pass@k, groups, greedy decoding."""

import pytest
import yaml
from ampo_registry import ConfigError, RewardSpec

from ampo_core.config.held_out import EvaluationSet
from ampo_core.config.load import load_config
from ampo_core.config.metric_names import evaluation_metrics

CONFIG = {
    "job": "evaluate",
    "models": {"m": {"path": "nowhere/nothing"}},
    "rollout": "transformers",
    "evaluation": {"sets": {"easy": {"path": "a.parquet", "samples": 6}, "hard": {"path": "b.parquet"}}},
}


@pytest.fixture
def load(tmp_path, plugins):
    def run(*overrides):
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(CONFIG))
        return load_config(tmp_path / "c.yaml", list(overrides), plugins)

    return run


@pytest.mark.parametrize(
    ("pass_at", "samples", "tries"),
    [
        ([], 8, ()),
        ([8, 1, 8], 8, (1, 8)),
        ("curve", 1, (1,)),
        ("curve", 6, (1, 2, 4, 6)),
        ("curve", 8, (1, 2, 4, 8)),
        ("curve", 256, (1, 2, 4, 8, 16, 32, 64, 128, 256)),
    ],
)
def test_tries(pass_at, samples, tries):
    assert EvaluationSet(path="x", samples=samples, pass_at=pass_at).tries() == tries


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("evaluation.groups={g: [esy]}", r"evaluation\.groups\.g\.0: no set is named 'esy'; did you mean easy"),
        ("evaluation.groups={easy: [hard]}", "easy is the name of a set; choose another"),
        ("evaluation.groups={macro: [hard]}", "macro is the name of the mean over all sets"),
        ("evaluation.groups={g: []}", "names no set"),
        ("evaluation.groups={g: [hard, hard]}", "hard stands twice"),
        ("evaluation.sets.easy.pass_at=curves", "expected curve or a list"),
        ("evaluation.temperature=-0.1", "expected a number >= 0"),
        ("models={m: null}", "names no model, and there are no predictions to grade anew"),
    ],
)
def test_refused(load, override, words):
    with pytest.raises(ConfigError, match=words):
        load(override)


def test_greedy_decoding_needs_one_sample_and_has_no_entropy(load):
    greedy = load("evaluation.temperature=0")
    assert any("easy.samples: found 6; at temperature 0 all samples" in text for text in greedy.warnings)
    assert not any("hard.samples" in text for text in greedy.warnings)
    names = evaluation_metrics(greedy.job.evaluation)
    assert not any(name.endswith("/entropy") for name in names)
    assert "eval/easy/entropy" in evaluation_metrics(load().job.evaluation)


def test_a_rewards_own_numbers_are_metrics_of_the_sets_that_it_grades(load):
    class Measuring(RewardSpec):
        logs = ("mine/a",)

    names = evaluation_metrics(load().job.evaluation, Measuring.model_construct())
    own = {name for name, item in load().job.evaluation.sets.items() if item.reward is None}
    assert {name for name in names if name.endswith("mine/a")} == {f"eval/{name}/mine/a" for name in own}
    assert own


def test_groups_and_curves_have_metrics(load):
    job = load("evaluation.groups={all: [easy, hard]}", "evaluation.sets.easy.pass_at=curve").job
    names = evaluation_metrics(job.evaluation)
    assert {"eval/all/avg", "eval/easy/pass@1", "eval/easy/pass@4", "eval/easy/pass@6"} <= set(names)


def test_grading_anew_asks_for_no_model_file_or_machine(load, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    wanting = load().blockers
    assert any("nowhere/nothing" in text for text in wanting)
    assert any("a.parquet" in text for text in wanting)
    (tmp_path / "predictions.jsonl").write_text("")
    anew = load(f"predictions=[{tmp_path / 'predictions.jsonl'}]", "resources.devices=999", "models={m: null}")
    assert anew.blockers == ()
    assert any("predictions.0: there is no gone.jsonl" in text for text in load("predictions=[gone.jsonl]").blockers)
