"""The run folder: refusal of foreign folders, atomic checkpoints, what is pruned, what the lines hold."""

import json
from pathlib import Path

import pytest
from ampo_registry import ConfigError, GroupReport, Message, Question, RunError

from ampo_core.config.tree import CheckpointConfig, RunConfig
from ampo_core.manifest import build_manifest, hash_file, hash_model
from ampo_core.runfolder import RunFolder, discard_unfinished, finished_output


def make(tmp_path: Path, *, keep: int = 2, best: str | None = None) -> RunFolder:
    run = RunConfig(name="demo", dir=str(tmp_path / "runs"))
    return RunFolder.create(run, "job: train\n", {"seed": 0}, CheckpointConfig(keep=keep, best=best))


def write_policy(folder: Path) -> None:
    (folder / "policy").mkdir()
    (folder / "policy" / "model.safetensors").write_bytes(b"weights")


def steps(folder: RunFolder) -> list[str]:
    return sorted(path.name for path in folder.checkpoints.iterdir() if path.is_dir())


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
    folder.log_samples(3, groups, 4)
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
    folder.log_samples(1, [group("a", ("chain", "terse", "policy"))], 3)
    assert len((folder.path / "samples.jsonl").read_text().splitlines()) == 3
    folder.log_samples(2, [], 3)
    assert len((folder.path / "samples.jsonl").read_text().splitlines()) == 3


def test_checkpoint_is_whole_and_latest_names_it(tmp_path):
    folder = make(tmp_path)
    assert folder.latest() is None
    final = folder.save_checkpoint(50, write_policy, {})
    assert final == folder.checkpoints / "step-000050" == folder.latest()
    assert (final / "policy" / "model.safetensors").read_bytes() == b"weights"
    assert steps(folder) == ["step-000050"]


@pytest.mark.parametrize("crash_in", ["write", "rename", "latest"])
def test_a_crash_leaves_the_old_checkpoint(tmp_path, monkeypatch, crash_in):
    folder = make(tmp_path, keep=1)
    folder.save_checkpoint(1, write_policy, {})

    def die(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if crash_in == "rename":
            patch.setattr(Path, "rename", die)
        if crash_in == "latest":
            patch.setattr("ampo_core.runfolder.write_atomically", die)
        with pytest.raises(KeyboardInterrupt):
            folder.save_checkpoint(2, die if crash_in == "write" else write_policy, {})
    assert folder.latest() == folder.checkpoints / "step-000001"
    assert (folder.checkpoints / "step-000001" / "policy" / "model.safetensors").exists()

    folder.save_checkpoint(3, write_policy, {})
    assert folder.latest() == folder.checkpoints / "step-000003"
    assert steps(folder)[-1] == "step-000003"


def test_leftovers_of_a_crash_do_not_enter_the_next_try(tmp_path):
    folder = make(tmp_path)

    def half(folder: Path) -> None:
        (folder / "policy").mkdir()
        (folder / "policy" / "half").touch()
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        folder.save_checkpoint(1, half, {})
    assert folder.latest() is None
    final = folder.save_checkpoint(1, write_policy, {})
    assert [path.name for path in (final / "policy").iterdir()] == ["model.safetensors"]
    assert steps(folder) == ["step-000001"]


def test_prune_keeps_the_newest_and_the_best(tmp_path):
    folder = make(tmp_path, keep=2, best="eval/macro/avg")
    for step, value in ((1, 0.1), (2, 0.9), (3, 0.3), (4, 0.9), (5, float("nan"))):
        folder.save_checkpoint(step, write_policy, {"eval/macro/avg": value})
    assert steps(folder) == ["step-000002", "step-000004", "step-000005"]
    assert folder.best() == {"metric": "eval/macro/avg", "value": 0.9, "step": 2, "checkpoint": "step-000002"}
    folder.save_checkpoint(6, write_policy, {"eval/macro/avg": 0.95})
    assert steps(folder) == ["step-000005", "step-000006"]


def test_prune_orders_by_number(tmp_path):
    folder = make(tmp_path, keep=1)
    folder.save_checkpoint(999_999, write_policy, {})
    folder.save_checkpoint(1_000_000, write_policy, {})
    assert steps(folder) == ["step-1000000"]


def test_is_best_needs_the_named_metric(tmp_path):
    assert not make(tmp_path).is_best({"eval/macro/avg": 1.0})
    folder = make(tmp_path / "other", best="eval/macro/avg")
    assert folder.is_best({"eval/macro/avg": 0.0})
    assert not folder.is_best({"reward/mean": 1.0})


def test_a_checkpoint_is_never_overwritten(tmp_path):
    folder = make(tmp_path)
    folder.save_checkpoint(1, write_policy, {})
    with pytest.raises(RunError, match="exists already"):
        folder.save_checkpoint(1, write_policy, {})


def test_a_full_disk_is_a_run_error(tmp_path):
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match="No space left"):
        make(tmp_path).save_checkpoint(1, full, {})


def test_done_marker_says_where_the_output_is(tmp_path):
    folder = make(tmp_path)
    assert finished_output(folder.path) is None
    policy = folder.save_checkpoint(1, write_policy, {}) / "policy"
    assert folder.finish(policy) == policy
    assert finished_output(folder.path) == policy
    outside = tmp_path / "data"
    folder.finish(outside)
    assert finished_output(folder.path) == outside


def test_only_unfinished_runs_are_discarded(tmp_path):
    folder = make(tmp_path)
    assert discard_unfinished(folder.path)
    assert not folder.path.exists()
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
    assert manifest["versions"]["ampo"]
    assert manifest["versions"]["torch"]
    assert manifest["models"] == {"org/name": None}
    assert manifest["data"][str(rows)] == {
        "sha256": "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356",
        "bytes": 3,
    }
    assert hash_file(rows)["bytes"] == 3
    json.dumps(manifest)


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
    monkeypatch.setattr("ampo_core.manifest.BLOCK_BYTES", 100)
    monkeypatch.setattr("ampo_core.manifest.SAMPLES", 26)
    (tmp_path / "config.json").write_text("{}")
    weights = bytearray(5_000)
    (tmp_path / "model.safetensors").write_bytes(weights)
    before = hash_model(tmp_path)["model.safetensors"]
    assert before.keys() == {"sha256_sampled", "bytes"}
    weights[changed] = 1
    (tmp_path / "model.safetensors").write_bytes(weights)
    assert (hash_model(tmp_path)["model.safetensors"] != before) is seen
