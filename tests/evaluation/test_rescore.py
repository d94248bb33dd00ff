"""Grading the samples of earlier jobs anew: no model, no questions, and the same numbers where nothing changed."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from ampo_registry import Message

from ampo_core.cli.main import main
from ampo_core.data.questions import question_uid

pytestmark = pytest.mark.process

TEXTS = {
    "a": ["<answer> B </answer>", "the answer is (B)", "<answer> C </answer>", "\\boxed{B}"],
    "b": ["<answer> A </answer>", "A", "it is hard to say", "<answer> B </answer>"],
}
TRUTHS = {"a": "B", "b": "A"}


def lines(model, name="letters", texts=TEXTS):
    for uid, samples in texts.items():
        for sample, text in enumerate(samples):
            record = {"uid": uid, "source": "s", "answer": TRUTHS[uid], "sample": sample, "text": text}
            yield {"model": model, "set": name, **record, "tokens": len(text), "finish_reason": "stop", "logprob": -1.5}


@pytest.fixture
def letters(tmp_path, monkeypatch):
    """A folder with letters.jsonl, samples of two models, and rescore.yaml, whose models and files do not exist."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "letters.jsonl", [*lines("one"), *lines("two", texts={"a": TEXTS["b"], "b": TEXTS["a"]})])
    document = {
        "job": "evaluate",
        "run": {"name": "again"},
        "predictions": ["letters.jsonl"],
        "rollout": {"type": "vllm", "max_response_tokens": 5},
        "reward": {"type": "choice", "workers": 1, "timeout_s": 30},
        "evaluation": {"sets": {"letters": {"path": "gone.parquet", "samples": 4, "pass_at": "curve"}}},
        "resources": {"devices": 4},
    }
    (tmp_path / "rescore.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return tmp_path


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def results(name="again"):
    return json.loads((Path("runs") / name / "results.json").read_text())["models"]


def test_a_tracker_that_cannot_start_leaves_no_folder(letters, capfd):
    plugin = str(Path(__file__).with_name("failing_tracker.py"))
    assert main(["rescore.yaml", "tracking=[tensorboard, failing]", "--plugin", plugin]) == 2
    assert "the server does not answer" in capfd.readouterr().err
    assert not Path("runs/again").exists()
    assert main(["rescore.yaml"]) == 0


def test_texts_are_graded_by_the_reward_that_is_asked_for(letters):
    assert main(["rescore.yaml"]) == 0
    one = results()["one"]["letters"]
    assert (one["questions"], one["samples"]) == (2, 4)
    assert one["avg"]["value"] == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert list(one["pass_at"]) == ["1", "2", "4"]
    assert one["pass_at"]["2"]["value"] == pytest.approx((1.0 + 5 / 6) / 2)
    assert one["length_mean"] == pytest.approx(sum(len(text) for texts in TEXTS.values() for text in texts) / 8)
    assert main(["rescore.yaml", "run.name=math", "reward={type: math_verify, workers: 1}"]) == 0
    assert results("math")["one"]["letters"]["avg"]["value"] != one["avg"]["value"]
    graded = [json.loads(line) for line in Path("runs/again/predictions.jsonl").read_text().splitlines()]
    assert [record["correct"] for record in graded[:4]] == [True, True, False, True]
    assert graded[0]["reward"] == pytest.approx(1.0)
    assert graded[0]["text"] == TEXTS["a"][0]


@pytest.mark.parametrize("change", [[], ["evaluation.sets.letters.pass_at=[1]", "--allow-changes"]])
def test_an_interrupted_one_begins_again_and_has_each_sample_once(letters, change):
    command = ["rescore.yaml", "models={one: {path: gone}}"]
    assert main(command) == 0
    file = Path("runs/again/predictions.jsonl")
    whole = file.read_text()
    Path("runs/again/done").unlink()
    assert main([*command, *change]) == 0
    assert file.read_text() == whole
    assert len(whole.splitlines()) == 8


def test_questions_are_handed_on_where_they_are_known(letters):
    asked = [{**record, "prompt": f"which, {record['uid']}?", "read": "<user>"} for record in lines("asked")]
    write(letters / "letters.jsonl", [*asked, *lines("older")])
    assert main(["rescore.yaml"]) == 0
    found = [json.loads(line) for line in Path("runs/again/predictions.jsonl").read_text().splitlines()]
    prompts = {model: [r["prompt"] for r in found if r["model"] == model] for model in ("asked", "older")}
    assert prompts == {"asked": ["which, a?"] * 4 + ["which, b?"] * 4, "older": [None] * 8}
    assert [r.get("read") for r in found] == ["<user>"] * 8 + [None] * 8


FUNCTION = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return 1.0 if extra_info and extra_info["accept"] in solution_str else 0.0
"""


def rows(*uids):
    """Rows of the contract whose reward reads what `extra_info` says."""
    for uid in uids:
        yield {
            "data_source": "s",
            "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"which, {uid}?"}],
            "reward_model": {"ground_truth": TRUTHS[uid], "style": "rule"},
            "extra_info": {"accept": "boxed" if uid == "a" else "hard"},
        }


def test_a_reward_reads_the_row_where_the_sets_file_has_it_still(letters, capfd):
    """Of two questions one is in the file; the other one, and all of them where it is gone, are said to have none."""
    found = {
        row["reward_model"]["ground_truth"]: question_uid(
            tuple(Message(turn["role"], turn["content"]) for turn in row["prompt"]), row["reward_model"]["ground_truth"]
        )
        for row in rows("a", "b")
    }
    asked = [
        {**record, "prompt": f"which, {record['uid']}?", "uid": found[record["answer"]]} for record in lines("one")
    ]
    write(letters / "letters.jsonl", asked)
    (letters / "mine.py").write_text(FUNCTION)
    write(letters / "set.jsonl", rows("a", "a"))
    reward = "reward={type: function, function: compute_score, style: verl, workers: 1}"
    command = ["rescore.yaml", reward, "evaluation.sets.letters.path=set.jsonl", "--plugin", "mine.py"]
    assert main(command) == 0
    said = "1 of 2 questions are graded without their row: the set's file has no such row, read as data and the set say"
    assert f"evaluation.sets.letters: {said}\n" in capfd.readouterr().out
    assert results()["one"]["letters"]["avg"]["value"] == pytest.approx(1 / 8)
    assert "set.jsonl" in json.loads(Path("runs/again/manifest.json").read_text())["data"]
    graded = [json.loads(line) for line in Path("runs/again/predictions.jsonl").read_text().splitlines()]
    assert [(record["prompt"], record["correct"]) for record in graded[3:5]] == [
        ("which, a?", True),
        ("which, b?", False),
    ]
    write(letters / "set.jsonl", rows("a", "b"))
    assert main([*command, "run.name=both"]) == 0
    assert results("both")["one"]["letters"]["avg"]["value"] == pytest.approx(2 / 8)
    assert "without their row" not in capfd.readouterr().out
    for name, change, reason in (
        ("dropped", "data.system_prompt=drop", "no such row"),
        ("gone", "evaluation.sets.letters.path=gone.parquet", "there is no gone.parquet"),
        ("other", "evaluation.sets.letters.where={level: 1}", "set.jsonl, row 1: where: no column level"),
    ):
        assert main([*command, f"run.name={name}", change]) == 0
        said = capfd.readouterr().out
        assert "2 of 2 questions are graded without their row: " in said
        assert reason in said


def test_no_model_and_no_tokenizer_is_loaded(letters, monkeypatch):
    from ampo_plugins.rollouts.vllm.spec import VllmRollout

    def refuse(*_, **__):
        raise AssertionError("grading anew needs no model")

    monkeypatch.setattr(VllmRollout, "build", refuse)
    monkeypatch.setattr("ampo_core.evaluation.job.load_tokenizer", refuse)
    assert main(["rescore.yaml", "models={one: {path: gone}, two: {path: gone}}"]) == 0


def test_a_subset_of_models_samples_and_questions(letters):
    fewer = ["evaluation.sets.letters.samples=2", "evaluation.sets.letters.limit=1"]
    assert main(["rescore.yaml", "models.two={path: gone}", *fewer]) == 0
    assert list(results()) == ["two"]
    assert (results()["two"]["letters"]["questions"], results()["two"]["letters"]["samples"]) == (1, 2)


def test_the_same_reward_gives_the_same_results(config):
    assert main(["evaluate.yaml"]) == 0
    shutil.rmtree("old")
    (config / "set.jsonl").unlink()
    changes = "run: {name: again}\npredictions: [runs/compared]\ncomparison: {curves: {old: null}}\n"
    Path("again.yaml").write_text(f"extends: runs/compared/config.yaml\n{changes}")
    assert main(["again.yaml"]) == 0
    for name in ("predictions.jsonl", "metrics.jsonl", "results.json", "results.md"):
        assert (Path("runs/again") / name).read_text() == (Path("runs/compared") / name).read_text()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("models.thre={path: gone}", "has no samples of 'thre'"),
        ("evaluation.sets.digits={path: gone}", "has no samples of one on 'digits'"),
        ("evaluation.sets.letters.samples=5", "2 of 2 questions have fewer samples than"),
        ("predictions=[runs]", "runs holds no finished evaluate job"),
        ("predictions=[nothing.jsonl]", "there is no nothing.jsonl"),
        ("predictions=[letters.jsonl, copy.jsonl]", "stands in letters.jsonl and in copy.jsonl"),
        ("predictions=[torn.jsonl]", "torn.jsonl: one, letters: the samples of question a… are 0, 2, 3, not 0 to 2"),
        ("predictions=[bad.jsonl]", "bad.jsonl, line 2: not a prediction with a model and a set"),
        ("predictions=[less/predictions.jsonl]", "has samples of 1 questions of letters, and results.json beside it"),
        ("predictions=[numbers.jsonl]", "its reward refuses 1 of 1 ground truths, e.g. '64': it is not a letter"),
        ("comparison.baseline=nobody", "comparison.baseline: no model is named 'nobody'; found one, two"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_written(letters, capfd, override, words):
    own = list(lines("one"))
    (letters / "runs").mkdir()
    shutil.copy("letters.jsonl", "copy.jsonl")
    write(letters / "torn.jsonl", [own[0], *own[2:]])
    (letters / "bad.jsonl").write_text(json.dumps(own[0]) + "\n{}\n" + json.dumps(own[1]) + "\n")
    (letters / "less").mkdir()
    write(letters / "less" / "predictions.jsonl", own[:4])
    (letters / "less" / "results.json").write_text(json.dumps({"models": {"one": {"letters": {"questions": 2}}}}))
    write(letters / "numbers.jsonl", [{**record, "answer": "64"} for record in own[:4]])
    assert main(["rescore.yaml", override]) == 2
    assert words in " ".join(capfd.readouterr().err.split())
    assert not (letters / "runs" / "again").exists()


def test_models_of_several_jobs_come_into_one_table(letters):
    write(letters / "one.jsonl", lines("one"))
    write(letters / "three.jsonl", lines("three", texts={"a": TEXTS["a"], "b": TEXTS["a"]}))
    assert main(["rescore.yaml", "predictions=[one.jsonl, three.jsonl]"]) == 0
    assert list(results()) == ["one", "three"]
    assert results()["three"]["letters"]["difference"] is not None
