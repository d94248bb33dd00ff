"""An evaluate job that was ended goes on: with the same files in the end, and without sampling anything twice."""

import json
import signal
from pathlib import Path

import pytest

from ampo_core.cli.main import main

pytestmark = pytest.mark.process

PLUGIN = Path(__file__).with_name("ending_tracker.py")
FILES = ("predictions.jsonl", "metrics.jsonl", "results.json", "results.md")
RUN = Path("runs") / "compared"


@pytest.fixture
def sampled(monkeypatch):
    """(model folder's name, distinct prompts) of every call for samples."""
    from ampo_plugins.rollouts.transformers.engine import TransformersEngine

    calls = []
    generate = TransformersEngine.generate

    def watch(self, requests, options):
        calls.append((Path(self.model.name_or_path).name, len(requests)))
        return generate(self, requests, options)

    monkeypatch.setattr(TransformersEngine, "generate", watch)
    return calls


def contents(run):
    return {name: (run / name).read_text() for name in FILES}


def unfinish(pairs, torn=""):
    """Make the finished run one that was killed after `pairs` pairs of model and set."""
    (RUN / "done").unlink()
    lines = (RUN / "predictions.jsonl").read_text().splitlines(keepends=True)
    order = list(dict.fromkeys((json.loads(line)["model"], json.loads(line)["set"]) for line in lines))
    kept = [line for line in lines if (json.loads(line)["model"], json.loads(line)["set"]) in order[:pairs]]
    (RUN / "predictions.jsonl").write_text("".join(kept) + torn)
    (RUN / "results.json").unlink()


def test_a_killed_job_goes_on_and_ends_as_if_it_had_not_been(config, forge):
    """By the command line, with SIGKILL after the first model and a torn line behind it."""
    command = ["evaluate.yaml", "--plugin", str(PLUGIN), "tracking=[ending]"]
    ended = forge.run(*command, environment={"AMPO_TEST_END": "1"})
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    sampled = (config / RUN / "predictions.jsonl").read_text()
    assert len(sampled.splitlines()) == (3 + 2) * 4
    with (config / RUN / "predictions.jsonl").open("a") as file:
        file.write(sampled.splitlines()[0].replace('"start"', '"other"') + '\n{"model": "oth')
    again = forge.run(*command)
    assert again.returncode == 0, again.stderr
    assert "goes on with 2 of 4 pairs of model and set" in again.stdout
    assert "start, odd: avg@4" not in again.stdout
    assert main(["evaluate.yaml", "run.name=whole"]) == 0
    assert contents(config / RUN) == contents(config / "runs" / "whole")


def test_only_what_is_missing_is_sampled(config, sampled, tiny_model, tiny_untied_model):
    assert main(["evaluate.yaml"]) == 0
    whole, models = contents(RUN), [tiny_model.name, tiny_untied_model.name]
    assert sampled == [(models[0], 3), (models[0], 2), (models[1], 3), (models[1], 2)]
    sampled.clear()
    unfinish(3)
    assert main(["evaluate.yaml"]) == 0
    assert sampled == [(models[1], 2)]
    assert contents(RUN) == whole
    unfinish(4)
    sampled.clear()
    assert main(["evaluate.yaml"]) == 0
    assert sampled == []
    assert contents(RUN) == whole


def test_a_pair_that_lacks_a_sample_is_sampled_again(config, sampled):
    assert main(["evaluate.yaml"]) == 0
    whole = contents(RUN)
    unfinish(4)
    lines = (RUN / "predictions.jsonl").read_text().splitlines(keepends=True)
    (RUN / "predictions.jsonl").write_text("".join(lines[:2] + lines[3:]))
    sampled.clear()
    assert main(["evaluate.yaml"]) == 0
    assert [count for _, count in sampled] == [3]
    assert sorted((RUN / "predictions.jsonl").read_text().splitlines()) == sorted(
        whole["predictions.jsonl"].splitlines()
    )
    assert (RUN / "results.json").read_text() == whole["results.json"]


def test_a_changed_config_is_refused_and_allowed_changes_keep_what_they_do_not_touch(config, sampled, capfd):
    assert main(["evaluate.yaml"]) == 0
    unfinish(3)
    assert main(["evaluate.yaml", "evaluation.temperature=0.5"]) == 2
    assert "evaluation.temperature: 1.0 -> 0.5" in capfd.readouterr().err
    sampled.clear()
    more = ["evaluation.sets.odd.samples=5", "evaluation.sets.even.pass_at=[1, 2]", "--allow-changes"]
    assert main(["evaluate.yaml", *more]) == 0
    said = capfd.readouterr().out
    assert "evaluation.sets.odd.samples: 4 -> 5" in said
    assert "goes on with 1 of 4 pairs" in said
    assert [count for _, count in sampled] == [3, 3, 2]
    assert (RUN / "history").is_dir()


def test_a_model_can_be_added_to_a_finished_comparison(config, sampled, tiny_model):
    assert main(["evaluate.yaml"]) == 0
    sampled.clear()
    third = f"models.third={{path: {tiny_model}, stop: ['<|im_end|>']}}"
    assert main(["evaluate.yaml", third]) == 2
    assert main(["evaluate.yaml", third, "--allow-changes"]) == 0
    assert sampled == [(tiny_model.name, 3), (tiny_model.name, 2)]
    assert list(json.loads((RUN / "results.json").read_text())["models"]) == ["start", "other", "third"]
    sampled.clear()
    assert main(["evaluate.yaml", third, "evaluation.temperature=0.5", "--allow-changes"]) == 0
    assert len(sampled) == 6  # everything: the temperature is everybody's


def test_a_finished_job_is_left_alone(config, sampled, capfd):
    assert main(["evaluate.yaml"]) == 0
    sampled.clear()
    assert main(["evaluate.yaml"]) == 0
    assert sampled == []
    assert "is finished already" in capfd.readouterr().out
