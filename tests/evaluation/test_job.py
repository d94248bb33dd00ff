"""The evaluate job for real: two random models, the `transformers` rollout, the real verifier, the command line."""

import json
import re

import pytest

from ampo_core.cli.main import main

pytestmark = pytest.mark.process


def test_evaluate_writes_compares_and_draws(config, capfd):
    assert main(["evaluate.yaml"]) == 0
    printed = capfd.readouterr().out
    run = config / "runs" / "compared"
    assert {path.name for path in run.iterdir()} >= {
        "config.yaml",
        "manifest.json",
        "metrics.jsonl",
        "predictions.jsonl",
        "results.json",
        "results.md",
        "curves.png",
        "pass_at_k.png",
        "done",
    }
    predictions = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert len(predictions) == 2 * (3 + 2) * 4
    assert {(p["model"], p["set"]) for p in predictions} == {
        (m, s) for m in ("start", "other") for s in ("odd", "even")
    }
    assert all(1 <= p["tokens"] <= 5 for p in predictions)
    results = json.loads((run / "results.json").read_text())
    assert results["models"]["other"]["even"]["questions"] == 2
    assert results["models"]["start"]["odd"]["length_mean"] == pytest.approx(
        sum(p["tokens"] for p in predictions if (p["model"], p["set"]) == ("start", "odd")) / 12
    )
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert "start/eval/odd/avg@4" in metrics[0]
    assert "other/eval/macro/avg" in metrics[1]
    said = [printed.index(f"{model}, {name}: avg@4 ") for model in ("start", "other") for name in ("odd", "even")]
    assert said == sorted(said)
    assert "evaluate 1/4" in printed
    assert "evaluate 4/4" in printed
    warned = re.findall(r"^warning: (\w+) on (\w+): .*; look at ", printed, re.M)
    assert warned == [(model, name) for model in ("start", "other") for name in ("odd", "even")]  # 5 tokens: no tags
    assert all(metrics[0][f"start/eval/{name}/format"] == 0 for name in ("odd", "even"))
    assert "start on odd" in (run / "report.html").read_text()
    for expected in ("Held-out questions", "against start", results["readings"][0], "Random models: a test.", "curves"):
        assert expected in printed


def test_the_same_seed_gives_the_same_predictions(config):
    assert main(["evaluate.yaml"]) == 0
    assert main(["evaluate.yaml", "run.name=again"]) == 0
    first, again = ((config / "runs" / name / "predictions.jsonl").read_text() for name in ("compared", "again"))
    assert first == again
    assert main(["evaluate.yaml", "run.name=seeded", "run.seed=4"]) == 0
    assert (config / "runs" / "seeded" / "predictions.jsonl").read_text() != first


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("comparison.baseline=nobody", "nobody"),
        ("comparison.curves.old=runs/nowhere", "comparison.curves.old"),
        ("evaluation.sets.odd.where.data_source=odder", "no question is left"),
        ("evaluation.sets.odd.pass_at=[8]", "pass_at"),
        ("rollout={type: vllm, gpu_memory_utilization: 2}", "gpu_memory_utilization"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(config, capfd, override, words):
    assert main(["evaluate.yaml", override]) == 2
    assert words in capfd.readouterr().err
    assert not (config / "runs" / "compared").exists()


def test_a_models_dtype_reaches_the_rollout(config, monkeypatch):
    from ampo_plugins.rollouts.transformers import engine

    held = []
    load = engine.load_model

    def watch(context, dtype):
        model = load(context, dtype)
        held.append(str(model.dtype))
        return model

    monkeypatch.setattr(engine, "load_model", watch)
    assert main(["evaluate.yaml", "models.other.dtype=bfloat16"]) == 0
    assert held == ["torch.float32", "torch.bfloat16"]
    assert main(["evaluate.yaml", "models.other.dtype=bfloat16", "rollout.dtype=float32", "run.name=own"]) == 0
    assert held[2:] == ["torch.float32", "torch.float32"]
