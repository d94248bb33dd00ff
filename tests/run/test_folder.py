"""The run folder: refusal of foreign folders, what the lines hold, the manifest."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from ampo_registry import ConfigError, GroupReport, Message, Question, RunError, TokenIds

from ampo_core.config.run_names import finished_output
from ampo_core.config.tree import RunConfig
from ampo_core.run.folder import RunFolder, discard_unfinished
from ampo_core.run.manifest import build_manifest, hash_file, hash_model, hash_questions


def make(tmp_path: Path) -> RunFolder:
    run = RunConfig(name="demo", dir=str(tmp_path / "runs"))
    return RunFolder.create(run, "job: train\n", {"seed": 0})


def group(uid: str, sources: tuple[str, ...]) -> GroupReport:
    question = Question(uid, (Message("system", "think"), Message("user", f"ask {uid}")), (1,), "42", "toy")
    scores = tuple(None if source == "policy" else 0.5 for source in sources)
    texts = tuple(f"{uid}.{slot}" for slot in range(len(sources)))
    return GroupReport(question, texts, (1.0,) * len(sources), sources, scores)


def test_create_writes_config_and_manifest(tmp_path):
    folder = make(tmp_path)
    assert folder.path == tmp_path / "runs" / "demo"
    assert (folder.path / "config.yaml").read_text() == "job: train\n"
    assert json.loads((folder.path / "manifest.json").read_text()) == {"seed": 0}


def test_create_accepts_an_empty_folder(tmp_path):
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    assert make(tmp_path).path.exists()


def test_create_refuses_a_folder_of_another_run(tmp_path):
    folder = make(tmp_path)
    with pytest.raises(ConfigError, match="demo holds an unfinished run"):
        make(tmp_path)
    folder.finish()
    with pytest.raises(ConfigError, match="demo holds a finished run"):
        make(tmp_path)
    assert (folder.path / "config.yaml").read_text() == "job: train\n"


def test_create_refuses_other_files_and_a_file(tmp_path):
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="other files"):
        make(tmp_path)
    with pytest.raises(ConfigError, match="is a file"):
        RunFolder.create(RunConfig(name="thesis.tex", dir=str(tmp_path / "runs" / "demo")), "", {})
    with pytest.raises(ConfigError, match="cannot make"):
        RunFolder.create(RunConfig(name="x", dir=str(tmp_path / "runs" / "demo" / "thesis.tex")), "", {})


def test_metrics_are_one_json_object_a_line(tmp_path):
    folder = make(tmp_path)
    folder.log_metrics(0, {"eval/macro/avg": 0.5})
    folder.log_metrics(1, {"step": 1.0, "policy/loss": float("nan"), "reward/mean": 0.25})
    lines = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 0, "eval/macro/avg": 0.5}, {"step": 1, "policy/loss": None, "reward/mean": 0.25}]


def test_samples_show_teachers_and_many_questions(tmp_path):
    folder = make(tmp_path)
    groups = [group("a", ("policy", "policy")), group("b", ("policy", "chain")), group("c", ("terse", "policy"))]
    folder.log_samples(3, groups, 4, str)
    lines = [json.loads(line) for line in (folder.path / "samples.jsonl").read_text().splitlines()]
    assert [(line["text"], line["source"], line["teacher"]) for line in lines] == [
        ("c.0", "teacher", "terse"),
        ("b.1", "teacher", "chain"),
        ("a.0", "policy", None),
        ("b.0", "policy", None),
    ]
    assert lines[0] == {
        "step": 3,
        "uid": "c",
        "dataset": "toy",
        "prompt": "ask c",
        "answer": "42",
        "text": "c.0",
        "reward": 1.0,
        "source": "teacher",
        "teacher": "terse",
        "score": 0.5,
    }


def test_samples_fill_up_with_teachers_when_students_are_few(tmp_path):
    folder = make(tmp_path)
    folder.log_samples(1, [group("a", ("chain", "terse", "policy"))], 3, str)
    assert len((folder.path / "samples.jsonl").read_text().splitlines()) == 3
    folder.log_samples(2, [], 3, str)
    assert len((folder.path / "samples.jsonl").read_text().splitlines()) == 3


def test_done_marker_says_where_the_output_is(tmp_path):
    folder = make(tmp_path)
    assert finished_output(folder.path) is None
    policy = folder.checkpoints / "step-000001" / "policy"
    assert folder.finish(policy) == policy
    assert finished_output(folder.path) == policy
    outside = tmp_path / "data"
    folder.finish(outside)
    assert finished_output(folder.path) == outside


def test_only_unfinished_runs_are_discarded(tmp_path):
    folder = make(tmp_path)
    assert discard_unfinished(folder.path)
    assert list(folder.path.iterdir()) == []
    assert not discard_unfinished(folder.path)
    make(tmp_path).finish()
    with pytest.raises(RunError, match="finished"):
        discard_unfinished(folder.path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").touch()
    assert not discard_unfinished(other)
    assert (other / "thesis.tex").exists()


def test_manifest_names_versions_data_and_platform(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    manifest = build_manifest(
        job="train", seed=3, plugins={"b": "2", "a": "1"}, data=[rows], teachers=["x", "x"], models=["org/name"]
    )
    assert manifest["seed"] == 3
    assert manifest["teachers"] == ["x"]
    assert list(manifest["plugins"]) == ["a", "b"]
    assert manifest["versions"]["ampo-rl"]
    assert manifest["versions"]["torch"]
    assert manifest["models"] == {"org/name": None}
    assert manifest["data"][str(rows)] == {
        "sha256": "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356",
        "bytes": 3,
    }
    assert hash_file(rows)["bytes"] == 3
    json.dumps(manifest)


def test_questions_are_known_by_their_uids_in_order():
    found = hash_questions(["aa", "bb"])
    assert found["count"] == 2
    assert found == hash_questions(iter(["aa", "bb"]))
    others = [["bb", "aa"], ["aa"], ["aa", "bb", "bb"], ["aab", "b"], []]
    assert len({hash_questions(uids)["sha256"] for uids in others} | {found["sha256"]}) == 6
    assert build_manifest(job="train", seed=0, plugins={}, questions={"train": found})["questions"] == {"train": found}


def test_a_model_is_known_by_its_weights(tmp_path):
    assert hash_model(tmp_path) is None
    for name in ("config.json", "model.safetensors", "model.safetensors.index.json", "README.md"):
        (tmp_path / name).write_text(name)
    before = hash_model(tmp_path)
    assert list(before) == ["config.json", "model.safetensors", "model.safetensors.index.json"]
    assert before["config.json"] == hash_file(tmp_path / "config.json")
    assert build_manifest(job="train", seed=0, plugins={}, models=[tmp_path])["models"] == {str(tmp_path): before}
    (tmp_path / "model.safetensors").write_text("model.safetensorz")
    after = hash_model(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {"model.safetensors"}


@pytest.mark.parametrize(("changed", "seen"), [(0, True), (200, True), (4_999, True), (120, False)])
def test_of_large_weight_files_blocks_from_start_to_end_are_hashed(tmp_path, monkeypatch, changed, seen):
    monkeypatch.setattr("ampo_core.run.manifest.BLOCK_BYTES", 100)
    monkeypatch.setattr("ampo_core.run.manifest.SAMPLES", 26)
    (tmp_path / "config.json").write_text("{}")
    weights = bytearray(5_000)
    (tmp_path / "model.safetensors").write_bytes(weights)
    before = hash_model(tmp_path)["model.safetensors"]
    assert before.keys() == {"sha256_sampled", "bytes"}
    weights[changed] = 1
    (tmp_path / "model.safetensors").write_bytes(weights)
    assert (hash_model(tmp_path)["model.safetensors"] != before) is seen


def test_samples_hold_what_was_read_and_what_is_trained_where_that_is_another(tmp_path):
    folder, two = make(tmp_path), group("q", ("policy", "policy"))
    plain, hinted = TokenIds([1, 2]), TokenIds([1, 7, 2])
    folder.log_samples(1, [replace(two, prompts=(plain, plain), read=(plain, hinted))], 8, lambda ids: f"read {[*ids]}")
    found = [json.loads(line) for line in (folder.path / "samples.jsonl").read_text().splitlines()]
    assert [(line["read"], line.get("trained_under")) for line in found] == [
        ("read [1, 2]", None),
        ("read [1, 7, 2]", "read [1, 2]"),
    ]


def test_segments_are_said_of_samples_that_are_not_trained_as_their_source_says(tmp_path):
    folder, kept = make(tmp_path), group("q", ("policy", "t", "t", "policy", "t"))
    segments = ((("on_policy", 9),), (("off_policy", 9),), (("off_policy", 4), ("on_policy", 5)), (("sft", 9),), ())
    folder.log_samples(1, [replace(kept, segments=segments, given=(0, 0, 2, 0, 0))], 8, str)
    folder.log_samples(2, [kept], 8, str)
    lines = [json.loads(line) for line in (folder.path / "samples.jsonl").read_text().splitlines()]
    said = {line["text"]: (line.get("segments"), line.get("given")) for line in lines if line["step"] == 1}
    assert said == {
        "q.0": (None, None),
        "q.1": (None, None),
        "q.2": ([["off_policy", 4], ["on_policy", 5]], 2),
        "q.3": ([["sft", 9]], None),
        "q.4": (None, None),
    }
    assert not any({"segments", "given"} & line.keys() for line in lines if line["step"] == 2)
