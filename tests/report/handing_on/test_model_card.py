"""The model card beside a policy: what it says stands in the run's files, and the Hub's library reads it."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from ampo_core.config.moved import in_keys_of_today
from ampo_core.report.budget import read_budget
from ampo_core.report.markdown import cell
from ampo_core.report.model_card import code, model_card, write_card
from ampo_core.report.spent import read_spent
from ampo_core.run.history import mark
from ampo_core.run.manifest import hash_file
from tests.report.conftest import write_lines
from tests.report.handing_on.conftest import OPTIONS, Handed, World

pytestmark = pytest.mark.process


def card_of(handed: Handed) -> ModelCard:
    return ModelCard.load(handed.policy / "README.md")


def untimed(line: str) -> str:
    """A line of a budget without its time."""
    return re.sub(r", [0-9.hms]+ in steps", "", line)


def table(text: str, section: str) -> dict[str, str]:
    """First and second column of the table under a heading."""
    body = text.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    cells = [line.strip("| ").split(" | ") for line in body.splitlines() if line.startswith("| ")]
    return {row[0]: row[1] for row in cells[1:]}


def test_the_front_matter_is_what_the_hub_takes(guided: Handed, sft: Handed, after_sft: Handed) -> None:
    assert card_of(guided).data.to_dict() == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["ampo", "grpo", "rlvr"],
    }
    for tuned in (sft, after_sft):  # the licence of a base model in a folder, from its card there
        found = card_of(tuned).data.to_dict()
        assert found["license"] == "mit"
        assert "base_model" not in found
        assert "| licence of the base model | mit |" in card_of(tuned).text
    assert card_of(sft).data.tags == ["ampo", "sft"]


def test_a_guided_run_is_described(guided: Handed, handing: World) -> None:
    text = card_of(guided).text
    assert f"| base model | `{handing.folder / 'tied'}`, a folder |" in text
    assert "| licence of the base model | unknown |" in text
    assert "AMPO: GRPO with guidance by teachers (trigger `adaptive`, selector `comprehension`" in text
    assert "k0 = 2" in text
    assert "| step | 2 of 2 |" in text
    assert "| seed | 3 |" in text
    data = handing.folder / "questions.jsonl"
    assert f"| `{data}` | training, evaluation toy | `{hash_file(data)['sha256']}` |" in text
    teachers = {name: int(count) for name, count in table(text, "Teachers").items()}
    assert set(teachers) == {"chain", "terse", "wrong"}
    assert teachers["wrong"] == 0
    assert sum(teachers.values()) == read_budget(guided.run).teacher_answers
    assert sum(teachers.values()) > 0
    metrics = [json.loads(line) for line in (guided.run / "metrics.jsonl").read_text().splitlines()]
    for name, count in teachers.items():
        assert count == sum(line.get(f"guidance/answers/{name}", 0) for line in metrics)
    shown = table(text, "Scores")
    assert shown["eval/toy/avg@2"] == f"{metrics[-1]['eval/toy/avg@2']:.4g}"
    assert shown["reward/mean"] == f"{metrics[-1]['reward/mean']:.4g}"
    assert "evaluation after step 2 (temperature 0.6, top-p 1.0)" in text
    assert f"Up to this step, in this run: {untimed(read_budget(guided.run).line())}.\n\nNot counted" in text
    assert " in steps" not in text
    assert table(text, "Key settings")["training.learning_rate"] == "`0.001`"
    assert (
        table(text, "Versions")["python"]
        == json.loads((guided.run / "manifest.json").read_text())["versions"]["python"]
    )


def test_the_resolved_config_is_inside(guided: Handed) -> None:
    block = re.search(r"<details>.*?\n```yaml\n(.*?)\n```\n\n</details>", card_of(guided).text, re.DOTALL)
    assert block is not None
    assert yaml.safe_load(block[1]) == guided.config


def test_each_checkpoint_has_a_card_of_its_step(guided: Handed) -> None:
    first = guided.run / "checkpoints" / "step-000001" / "policy" / "README.md"
    text = first.read_text()
    assert "| step | 1 of 2 |" in text
    assert f"in this run: {untimed(read_budget(guided.run, 1).line())}.\n" in text
    assert "evaluation after step 1 " in text


def test_fine_tuned_runs_are_described(sft: Handed, lora: Handed, after_sft: Handed) -> None:
    text = card_of(sft).text
    assert "supervised fine-tuning" in text
    assert table(text, "Teachers") == {"chain": "10", "terse": "10", "wrong": "10"}
    assert "has evaluated nothing" in text
    assert "sampling options (temperature 0.7, top_k 20)" in text
    assert "LoRA of rank 4, alpha 8, merged into the base model's weights" in card_of(lora).text
    later = card_of(after_sft).text
    assert "GRPO, without guidance" in later
    assert "| trained before by | the sft run `sft` up to step 2, on `questions.jsonl` |" in later
    assert "\n## Teachers\n\nNone.\n" in later
    own, before, together = map(untimed, read_spent(after_sft.run).lines())
    assert before.startswith("made from sft: 2 steps, 0 tokens generated, ")
    assert f"in this run: {own}.\n\nM{before[1:]}.\n\nTogether: {together.removeprefix('together: ')}.\n\n" in later


def test_the_budget_stands_on_the_screen_too(guided: Handed, after_sft: Handed) -> None:
    for handed in (guided, after_sft):
        assert (
            "\n".join([f"budget: {read_budget(handed.run).line()}", *read_spent(handed.run).lines()[1:]])
            in handed.screen
        )
    spent = read_spent(after_sft.run)
    assert (spent.own.teacher_answers, spent.before.teacher_answers) == (0, 30)
    assert spent.total.teachers == ("chain", "terse", "wrong")


@pytest.mark.parametrize("name", ["guided", "sft"])
def test_what_it_says_of_loading_works(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handed: Handed = request.getfixturevalue(name)
    text = card_of(handed).text
    block = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert block is not None
    script = tmp_path / "load.py"
    script.write_text(block[1].replace('"FOLDER"', repr(str(handed.policy))))
    found = runpy.run_path(str(script))
    assert capsys.readouterr().out.endswith("\n")
    if name == "guided":
        assert found["tokenizer"].decode(found["prompt"]["input_ids"][0]).endswith(f"Answer{OPTIONS['mark']}")
        assert """vllm serve FOLDER --dtype float32 --default-chat-template-kwargs '{"mark": ":"}'""" in text


def test_a_base_model_from_the_hub_is_named(guided: Handed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    shutil.copytree(guided.run, run, ignore=shutil.ignore_patterns("checkpoints"))
    local = guided.config["model"]["path"]
    for name in ("config.yaml", "manifest.json"):
        (run / name).write_text((run / name).read_text().replace(local, "org/base"))
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "models": {"org/base": None}}))
    card = model_card(run, 2, guided.policy)
    assert card.data.base_model == "org/base"
    assert card.data.license is None
    assert "| base model | `org/base` on the Hugging Face Hub |" in card.text
    cached = tmp_path / "hub" / "models--org--base"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc")
    (cached / "snapshots" / "abc").mkdir(parents=True)
    readme = cached / "snapshots" / "abc" / "README.md"
    readme.write_text("---\nlicense: other\nlicense_name: qwen\n---\n")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert model_card(run, 2, guided.policy).data.to_dict()["license_name"] == "qwen"
    readme.write_text("---\nlicense: [\n---\n")
    assert model_card(run, 2, guided.policy).data.license is None


def test_a_run_that_went_on_with_other_settings_says_so(guided: Handed, tmp_path: Path) -> None:
    run = shutil.copytree(guided.run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    assert "Changed on the way" not in model_card(run, 2, guided.policy).text
    (run / "history").mkdir()
    mark(run, 1, [("training.learning_rate", 0.1, 0.001), ("versions.torch", "2.1", "2.2")])
    mark(run, 2, [("training.steps", 2, 3)])
    text = model_card(run, 2, guided.policy).text
    head = text[: text.index("| base model")]
    assert "**Changed on the way:** the run went on with changes that were allowed (`--allow-changes`)" in head
    assert "\n- after step 1 (" in head
    assert " UTC): training.learning_rate 0.1 → 0.001, versions.torch 2.1 → 2.2\n" in head
    assert "training.steps 2 → 3" not in text  # which is no matter of the model after step 2
    assert "Changed on the way" not in model_card(run, 1, guided.policy).text


def test_a_card_that_cannot_be_written_is_said_and_ends_no_run(guided: Handed, tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text("[]")
    said: list[str] = []
    write_card(guided.run, said.append, 2, tmp_path)
    assert said == [
        """the model card of step 2 could not be written: AttributeError("'list' object has no attribute 'get'")"""
    ]
    assert os.listdir(tmp_path) == ["generation_config.json"]


def test_what_an_older_release_did_not_record_is_unknown(guided: Handed, tmp_path: Path) -> None:
    run = shutil.copytree(guided.run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    manifest = json.loads((run / "manifest.json").read_text())
    kept = {name: value for name, value in manifest.items() if name not in ("teachers", "seed")}
    unknown = {"plugins": None, "data": None, "versions": {"ampo-rl": None}}
    (run / "manifest.json").write_text(json.dumps({**kept, **unknown}))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    old = [{name: value for name, value in line.items() if not name.startswith("guidance/answers/")} for line in lines]
    write_lines(run / "metrics.jsonl", [line | {"groups/sampled": None} for line in old])
    text = model_card(run, 2, guided.policy).text
    assert "of AMPO (version unknown).\n" in text
    assert "| seed | unknown |" in text
    assert set(table(text, "Teachers").values()) == {"unknown"}
    for later in (old, [*old[:-1], lines[-1]]):  # shares and means tell as much, and a run may have gone on since
        write_lines(run / "metrics.jsonl", later)
        shown = table(model_card(run, 2, guided.policy).text, "Teachers")
        assert shown.items() <= table(card_of(guided).text, "Teachers").items()
        assert sum(map(int, shown.values())) == read_budget(guided.run).teacher_answers


@pytest.mark.parametrize(
    ("value", "shown"), [("a|b\nc", r"`a\|b c`"), ("a`b", "`` a`b ``"), (None, "`unknown`"), (3, "`3`")]
)
def test_cells(value: object, shown: str) -> None:
    assert code(value) == shown
    assert "\n" not in cell(value)


OLD = Path(__file__).parents[2] / "release_0_1" / "run"


def test_a_run_of_release_0_1_and_one_with_schedules_and_terms(tmp_path: Path) -> None:
    old = shutil.copytree(OLD, tmp_path / "old")
    text = model_card(old, 3, tmp_path).text
    assert "at most k0 = 2 replacements in a group, threshold 0.6) |" in text
    assert '| objective.on_policy.loss | `{"type": "clip", "low": 0.2, "high": 0.2' in text
    assert "| ampo-rl | 0.1.0 |" in text
    assert table(text, "Teachers")["chain"] == "25"
    config, _ = in_keys_of_today(yaml.safe_load((old / "config.yaml").read_text()))
    config["guidance"] |= {
        "replacements": {"type": "linear", "start": 4, "end": 1, "steps": None},
        "intervention": {"type": "prefix", "share": 0.5},
    }
    term = {"loss": {"type": "nll"}, "samples": "guidance", "weight": {"type": "cosine", "start": 1.0, "end": 0.0}}
    config["objective"]["auxiliary"] = {"sft": term}
    (old / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    text = model_card(old, 3, tmp_path).text
    assert (
        "at most k0 = linear (start 4, end 1) answers in a group, threshold 0.6, intervention prefix (share 0.5)"
        in text
    )
    assert "| term `sft` | nll on guidance, weight cosine (start 1.0, end 0.0) |" in text
