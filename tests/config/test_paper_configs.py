"""Every row of the paper's tables is in a suite, and each config differs from its base in what it is about alone."""

from functools import cache
from pathlib import Path

import pytest

from ampo_core.config.load import load_config
from ampo_core.config.suite_job import SuiteJob

ROOT = Path(__file__).parents[2]

# the paper's name of a row -> the run of configs/suites/paper.yaml
TABLE_1_7B = {
    "Qwen2.5-7B-Ins": "qwen_7b",
    "SFT": "sft",
    "GRPO": "grpo",
    "SFT+GRPO": "sft_grpo",
    "LUFFY": "luffy",
    "AMPO(ours)": "ampo",
    "SFT+AMPO": "sft_ampo",
}
ROWS = {
    "table1": TABLE_1_7B,
    "table1_1_5b": {"Qwen2.5-1.5B-Ins": "qwen_1_5b", "GRPO": "grpo_1_5b", "AMPO(ours)": "ampo_1_5b"},
    "table1_llama": {"Llama3.2-8B-Ins": "llama", "GRPO": "grpo_llama", "AMPO(ours)": "ampo_llama"},
    "table3": {
        "AMPO": "ampo",
        "-w/o. adaptive": "without_adaptive",
        "-w/o. seq": "without_seq",
        "-r_length": "r_length",
        "-r_random": "r_random",
    },
    "table4": {"k0 = 1": "k1", "2": "ampo", "k0 = 3": "k3", "k0 = 4": "k4"},
    "table5": {
        "R1 only": "r1",
        "4 LongCoTs": "long",
        "4 ShortCoTs": "short",
        "4 LongCoTs + R1": "long_r1",
        "4 LongCoTs + 4 ShortCoTs": "long_short",
    },
}

PARTS = ("table1", "table3", "table4", "table5", "baselines")

AMPO = "configs/paper/qwen2.5-7b.yaml"
GRPO = "configs/baselines/grpo.yaml"
LONG = "configs/paper/compositions/long.yaml"
POOL = "runs/paper-pool/out/"
# config -> (what it is a variation of, the keys in which it differs and what they say there)
VARIATIONS = {
    "paper/qwen2.5-1.5b": (
        AMPO,
        {"model.path": "Qwen/Qwen2.5-1.5B-Instruct", "deepspeed.zero_stage": 2, "resources.devices": 1},
    ),
    "paper/llama3.2-8b": (
        AMPO,
        {
            "model.path": "voidful/Llama-3.2-8B-Instruct",
            "model.stop": ["<|eot_id|>"],
            "model.chat_template_options": {"date_string": "26 Jul 2024"},
        },
    ),
    "paper/ablations/without_adaptive": (AMPO, {"guidance.trigger": {"type": "always"}}),
    "paper/ablations/without_seq": (AMPO, {"objective.off_policy.aggregator": {"type": "token"}}),
    "paper/ablations/length_selector": (AMPO, {"guidance.selector": {"type": "length", "prefer": "short"}}),
    "paper/ablations/random_selector": (AMPO, {"guidance.selector": {"type": "random"}}),
    "paper/replacements/k1": (AMPO, {"guidance.replacements": 1}),
    "paper/replacements/k3": (AMPO, {"guidance.replacements": 3}),
    "paper/replacements/k4": (AMPO, {"guidance.replacements": 4}),
    "paper/compositions/long": (AMPO, {"data.train": [POOL + "long.parquet"]}),
    "paper/compositions/short": (LONG, {"data.train": [POOL + "short.parquet"]}),
    "paper/compositions/long_r1": (LONG, {"data.train": [POOL + "long_r1.parquet"]}),
    "paper/compositions/long_short": (LONG, {"data.train": [POOL + "long_short.parquet"]}),
    "paper/compositions/r1": (LONG, {"data.train": [POOL + "r1.parquet"], "guidance.replacements": 1}),
    "baselines/grpo": (AMPO, {"guidance": None}),
    "baselines/grpo_qwen2.5-1.5b": ("configs/paper/qwen2.5-1.5b.yaml", {"guidance": None}),
    "baselines/grpo_llama3.2-8b": ("configs/paper/llama3.2-8b.yaml", {"guidance": None}),
    "baselines/dr_grpo": (
        GRPO,
        {
            "objective.advantage": {"type": "mean_only", "zero_without_correct": False},
            "objective.on_policy.aggregator": {"type": "constant", "length": None, "per_sequence": True},
        },
    ),
    "baselines/dapo": (
        GRPO,
        {
            "reward.overlong_penalty": {"buffer": 1638, "value": -0.5},
            "objective.scope": "batch",
            "objective.on_policy.loss.high": 0.28,
            "objective.entropy_coefficient": 0.0,
            "objective.group_filter": {"drop": ["all_correct", "all_wrong"], "resample": True},
        },
    ),
    "baselines/luffy": (
        AMPO,
        {
            "data.train": ["data/openr1_math_46k.parquet"],
            "guidance.trigger": {"type": "always"},
            "guidance.selector": {"type": "random"},
            "guidance.replacements": 1,
            "objective.scope": "batch",
            "objective.advantage": {
                "type": "on_policy_baseline",
                "ddof": 0,
                "eps": 1e-6,
                "zero_without_correct": False,
            },
            "objective.on_policy.loss.low": None,
            "objective.on_policy.loss.high": None,
            "objective.on_policy.weight": "token_share",
            "objective.off_policy.aggregator": {"type": "token"},
            "objective.off_policy.weight": "token_share",
        },
    ),
}


@pytest.fixture(autouse=True)
def root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def loaded(plugins):
    return cache(lambda path: load_config(ROOT / path, (), plugins))


@pytest.fixture(scope="module")
def resolved(loaded):
    return lambda path: loaded(path).data


@pytest.fixture(scope="module")
def suite(resolved):
    return SuiteJob.model_validate(resolved("configs/suites/paper.yaml"))


def changes(base, variation, path=()):
    """(dotted key, what `variation` says) wherever it differs; a component of another type is one difference."""
    both = isinstance(base, dict) and isinstance(variation, dict)
    if both and base.get("type") == variation.get("type") and base and variation:
        for key in {**base, **variation}:
            yield from changes(base.get(key), variation.get(key), (*path, key))
    elif base != variation:
        yield ".".join(path), variation


@pytest.mark.parametrize("name", VARIATIONS)
def test_a_config_differs_from_its_base_in_these_keys_alone(name, resolved):
    base, expected = VARIATIONS[name]
    found = dict(changes(resolved(base), resolved(f"configs/{name}.yaml")))
    found.pop("run.name")
    assert found == expected


def test_every_config_of_a_row_is_such_a_variation():
    paths = [*Path("configs/paper").rglob("*.yaml"), *Path("configs/baselines").glob("*.yaml")]
    trained = [path for path in paths if "job: evaluate" not in path.read_text() and "evaluate" not in path.stem]
    names = {path.relative_to("configs").as_posix().removesuffix(".yaml") for path in trained}
    others = {"paper/qwen2.5-7b", "baselines/sft", "baselines/sft_then_grpo", "baselines/sft_then_ampo"}
    assert names == {*VARIATIONS, *others}


def test_no_two_configs_have_one_name(resolved):
    paths = [f"configs/{name}.yaml" for name in VARIATIONS] + [AMPO, "configs/baselines/sft.yaml"]
    names = [resolved(path)["run"]["name"] for path in paths]
    assert len(set(names)) == len(names)


def test_sft_is_as_the_paper_says(resolved):
    sft, ampo = resolved("configs/baselines/sft.yaml"), resolved(AMPO)
    assert sft["model"]["lora"] == {"rank": 8, "alpha": 16, "dropout": 0.0, "target_modules": "all-linear"}
    assert sft["model"]["dtype"] == "bfloat16"
    said = {"epochs": 3, "batch": 1, "accumulation": 8, "learning_rate": 5e-5, "schedule": "cosine"}
    assert {key: sft["training"][key] for key in said} == said
    assert sft["training"]["warmup_ratio"] == 0.1
    assert sft["data"]["max_tokens"] == 8192
    assert sft["data"]["train"] == ampo["data"]["train"]
    assert sft["data"]["system_prompt"] == ampo["data"]["system_prompt"]
    assert sft["model"]["path"] == ampo["model"]["path"]


@pytest.mark.parametrize(("name", "second"), [("sft_then_grpo", "grpo.yaml"), ("sft_then_ampo", "qwen2.5-7b.yaml")])
def test_a_pipeline_hands_the_sft_model_on_and_changes_nothing_else(name, second, resolved):
    sft, then = resolved(f"configs/baselines/{name}.yaml")["stages"]
    assert (Path(sft["config"]).name, sft["overrides"]) == ("sft.yaml", {})
    assert (Path(then["config"]).name, then["overrides"]) == (second, {"model.path": "${stages.sft.out}"})


@pytest.mark.parametrize("table", ROWS)
def test_every_row_of_a_table_is_a_run(table, suite):
    assert sorted(suite.tables[table].rows) == sorted(ROWS[table].values())
    runs = suite.members()
    for title, name in ROWS[table].items():
        same = {"2": "AMPO(ours)", "AMPO": "AMPO(ours)"}.get(title, title)
        assert (runs[name].title or "").partition(", ")[0] == same


def test_the_evaluations_of_the_suite_are_the_nine_benchmarks_in_two_halves(resolved, suite):
    whole = resolved("configs/paper/evaluate.yaml")
    for name, sets in whole["evaluation"]["groups"].items():
        half = resolved(f"configs/paper/evaluate_{name}.yaml")
        assert Path(suite.evaluations[name]).name == f"evaluate_{name}.yaml"
        assert half["evaluation"]["sets"] == {key: whole["evaluation"]["sets"][key] for key in sets}
        found = dict(changes(whole, half))
        assert {key: say for key, say in found.items() if not key.startswith("evaluation.")} == {
            "run.name": f"paper-evaluate-{name.replace('_', '-')}",
        }
    options = resolved("configs/paper/llama3.2-8b.yaml")["model"]["chat_template_options"]
    assert whole["models"]["model"]["chat_template_options"] == options
    assert list(suite.evaluations) == ["in_distribution", "out_of_distribution"]


def test_every_run_is_in_a_table(suite):
    assert {row for table in suite.tables.values() for row in table.rows} == set(suite.runs)


def test_a_row_runs_its_config(suite):
    runs = suite.members()
    config_of = {
        name: Path(run.config).relative_to(ROOT / "configs").as_posix() for name, run in runs.items() if run.config
    }
    expected = {
        "ampo": "paper/qwen2.5-7b.yaml",
        "sft_ampo": "paper/qwen2.5-7b.yaml",
        "grpo": "baselines/grpo.yaml",
        "sft_grpo": "baselines/grpo.yaml",
        "sft": "baselines/sft.yaml",
        "luffy_here": "baselines/luffy.yaml",
        "without_adaptive": "paper/ablations/without_adaptive.yaml",
        "without_seq": "paper/ablations/without_seq.yaml",
        "r_length": "paper/ablations/length_selector.yaml",
        "r_random": "paper/ablations/random_selector.yaml",
        "grpo_1_5b": "baselines/grpo_qwen2.5-1.5b.yaml",
        "ampo_1_5b": "paper/qwen2.5-1.5b.yaml",
        "grpo_llama": "baselines/grpo_llama3.2-8b.yaml",
        "ampo_llama": "paper/llama3.2-8b.yaml",
        "dr_grpo": "baselines/dr_grpo.yaml",
        "dapo": "baselines/dapo.yaml",
        "released": "presets/released.yaml",
        **{name: f"paper/replacements/{name}.yaml" for name in ("k1", "k3", "k4")},
        **{name: f"paper/compositions/{name}.yaml" for name in ("r1", "long", "short", "long_r1", "long_short")},
    }
    assert config_of == expected
    after_sft = {"model.path": "${runs.sft.out}"}
    overrides = {name: run.overrides for name, run in runs.items() if run.overrides}
    assert overrides == {"sft_grpo": after_sft, "sft_ampo": after_sft, "released": {"resources.devices": 4}}


@pytest.mark.parametrize("name", PARTS)
def test_a_suite_of_one_table_shares_the_folder_and_differs_in_nothing_else(name, resolved):
    whole, part = resolved("configs/suites/paper.yaml"), resolved(f"configs/suites/{name}.yaml")
    ((key, only),) = changes(whole, part)
    assert key == "only"
    wanted = {"table1": ["table1", "table1_1_5b", "table1_llama"]}.get(name, [name])
    assert only == wanted


def test_a_suite_of_one_table_needs_no_files_of_the_others(loaded):
    missing = {name: "\n".join(loaded(f"configs/suites/{name}.yaml").blockers) for name in PARTS}
    assert {name for name, text in missing.items() if "runs/paper-pool" in text} == {"table5"}
    assert {name for name, text in missing.items() if "openr1_math_46k" in text} == {"baselines"}
    assert {name for name, text in missing.items() if "configs/baselines/sft.yaml" in text} == {"table1", "baselines"}


def test_the_page_names_every_config_of_a_row():
    page = Path("docs/experiments.md").read_text(encoding="utf-8")
    assert [name for name in VARIATIONS if f"(../configs/{name}.yaml)" not in page] == []
