"""From a CSV file with rows like GSM8K's to a trained policy, by the command line; and `--check` of whole configs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from ampo_core.cli import main as cli

CSV = 'question,answer,level\n1 + 1?,"so\n#### 2",1\n600 + 634?,"#### 1,234",2\n2 + 2?,no mark,1\n3 + 4?,#### 7,1\n'
HELD_OUT = [{"question": "5 + 4?", "answer": "#### 9"}, {"question": "5 + 6?", "answer": "#### 11"}]
TRAIN = {
    "job": "train",
    "run": {"name": "mine"},
    "model": {"path": "model", "dtype": "float32", "gradient_checkpointing": False},
    "data": {"train": ["sums.csv"], "layout": "gsm8k", "max_prompt_tokens": 64, "system_prompt": "drop"},
    "rollout": {"type": "transformers", "group_size": 2, "max_response_tokens": 8},
    "reward": {"type": "math_verify", "workers": 1},
    "guidance": None,
    "training": {"steps": 1, "questions_per_batch": 2, "questions_per_minibatch": 2, "tokens_per_microbatch": 256},
    "evaluation": {"sets": {"held": {"path": {"hub": "./held", "split": "test"}}}, "every": None, "at_start": False},
    "deepspeed": {"zero_stage": 0},
    "resources": {"threads": 1},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sums.csv").write_text(CSV)
    Path("held").mkdir()
    pq.write_table(pa.Table.from_pylist(HELD_OUT), "held/test.parquet")
    write("train.yaml", TRAIN)
    return tmp_path


def write(name, config):
    Path(name).write_text(yaml.safe_dump(config))


def test_a_run_on_them(folder, forge, tiny_model):
    overrides = (f"model.path={tiny_model}",)
    environment = {"HF_DATASETS_CACHE": str(folder / "datasets")}
    done = forge.run("train.yaml", *overrides, folder=folder, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sums.csv: 4 rows, 3 questions: 3 distinct, 1 left out, ground truth refused" in done.stdout
    assert "sums.csv, row 3: ground truth 'no mark' refused: answer: answer_pattern" in done.stdout
    data = json.loads(Path("runs/mine/manifest.json").read_text())["data"]
    assert data["sums.csv"]["bytes"] == len(CSV)
    assert data["./held (test)"]["rows"] == 2
    samples = [json.loads(line) for line in Path("runs/mine/samples.jsonl").read_text().splitlines()]
    assert {sample["answer"] for sample in samples} <= {"2", "1234", "7"}

    card = next(Path("runs/mine").rglob("policy/README.md")).read_text()
    assert re.search(r"`\./held \(test\)` \| evaluation held \| `\w+` \| 2 rows \|", card)
    assert '[{"role": "user", "content": "…"}]' in card

    pq.write_table(pa.Table.from_pylist(HELD_OUT[:1]), "held/test.parquet")
    Path("runs/mine/done").unlink()
    done = forge.run("train.yaml", *overrides, folder=folder, environment=environment)
    assert done.returncode == 2
    assert "data../held (test).rows: 2 -> 1" in done.stderr
    done = forge.run("train.yaml", *overrides, "data.layout=null", "run.name=other", folder=folder)
    assert done.returncode == 2
    assert "sums.csv, row 1: reward_model must be a mapping" in done.stderr
    assert not Path("runs/other").exists()


def check(*arguments, capsys):
    code = cli.main([*arguments, "--check"])
    return code, capsys.readouterr().err


def test_check_of_a_config_with_and_without_what_it_needs(folder, capsys):
    code, said = check("train.yaml", capsys=capsys)
    assert code == 0
    assert "data.train.0: 1 of the first 4 rows would be left out" in said
    code, said = check("train.yaml", "data.layout=null", capsys=capsys)
    assert code == 2
    assert "data.train.0: sums.csv, row 1: reward_model must" in said
    assert "evaluation.sets.held.path: ./held (test), row 1: reward_model must" in said
    assert said.count("its columns question, answer, level fit layout: gsm8k") == 1
    code, said = check("train.yaml", "data.train.0=${stages.a.out}/t.csv", capsys=capsys)
    assert (code, "fit layout" in said) == (0, False)


def test_check_looks_at_the_files_of_stages_and_pools_too(folder, capsys):
    write("pool.yaml", {
        "job": "pool", "questions": ["sums.csv"], "student": {"path": "model"}, "data": {"where": {"level": "2"}},
        "rollout": {"type": "transformers"}, "teachers": [{"name": "a", "model": {"path": "model"}}],
    })  # fmt: skip
    second = {"name": "b", "config": "train.yaml", "overrides": {"data.train": ["${stages.a.out}/train.parquet"]}}
    stages = [{"name": "a", "config": "pool.yaml"}, second]
    write("all.yaml", {"job": "pipeline", "run": {"name": "all"}, "stages": stages})
    code, said = check("all.yaml", capsys=capsys)
    assert code == 2
    assert "questions.0: sums.csv, row 2: reward_model must be a mapping" in said
    stages[0]["overrides"] = {"data.layout": "gsm8k"}
    write("all.yaml", {"job": "pipeline", "run": {"name": "all"}, "stages": stages})
    assert check("all.yaml", capsys=capsys)[0] == 0
    write("suite.yaml", {"job": "suite", "runs": {"a": {"config": "train.yaml", "overrides": {"data.layout": "math"}}}})
    code, said = check("suite.yaml", capsys=capsys)
    assert (code, "it has no column problem" in said) == (2, True)
