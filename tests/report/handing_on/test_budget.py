"""What a run spent, from its folder alone: sums, what is not recorded, and the runs that it started from."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ampo_registry import ConfigError

from ampo_core.config.yaml_source import dump_yaml
from ampo_core.report.budget import Budget, read_budget, replacements
from ampo_core.report.facts import spent_table
from ampo_core.report.lineage import read_metrics, run_of_policy
from ampo_core.report.spent import policy_spent, read_spent
from ampo_core.run.history import mark

GUIDED = {"guidance/replaced": 1.3125, "groups/sampled": 16.0, "tokens/teacher": 500.0}


UNKNOWN: dict[str, Any] = {"questions": None, "rollouts": None, "seconds": None}


def make(folder: Path, job: str, lines: list[dict[str, Any]], model: str = "org/base", **more: Any) -> Path:
    """A run folder with what a budget reads, and a policy of each step."""
    folder.mkdir(parents=True)
    manifest = {"job": job, "teachers": [], **more.pop("manifest", {})}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "config.yaml").write_text(dump_yaml({"job": job, "model": {"path": model}, **more}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for line in lines:
        policy(folder, line["step"]).mkdir(parents=True)
    return folder


def policy(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step-{step:06d}" / "policy"


def train_line(step: int, **more: float) -> dict[str, Any]:
    return {"step": step, "tokens/generated": 100.0, "tokens/trained": 60.0, **more}


FOUR_A_STEP = {"batch": 2, "accumulation": 2}


def sft_line(step: int) -> dict[str, Any]:
    return {"step": step, "tokens/trained": 40.0, "tokens/answers": 30.0}


def sft_run(folder: Path, steps: int = 2) -> Path:
    manifest = {"teachers": ["chain"], "examples": {"count": 7, "teachers": {"chain": 7}}}
    lines = [sft_line(step) for step in range(1, steps + 1)]
    return make(folder, "sft", lines, manifest=manifest, data={"format": "pool"}, training=FOUR_A_STEP)


def test_a_guided_run(tmp_path):
    lines = [
        {"step": 0, "eval/macro/avg": 0.5},
        train_line(1, **GUIDED, **{"guidance/teacher/chain": 1 / 3, "guidance/teacher/terse": 2 / 3}),
        train_line(2, **{**GUIDED, "guidance/replaced": 0.0, "tokens/teacher": 0.0}),
    ]
    run = make(tmp_path / "ampo", "train", lines, guidance={}, manifest={"teachers": ["chain", "idle", "terse"]})
    assert read_budget(run) == Budget(
        200, 120, 2, 21, ("chain", "terse"), 500, **{**UNKNOWN, "questions": 32}, runs=(str(run),)
    )
    assert read_budget(run, step=1).teacher_answers == 21
    assert read_budget(run, step=1).steps == 1
    assert read_spent(run).total == read_budget(run)


COUNTED = {**GUIDED, "guidance/teacher/chain": 1 / 3, "guidance/teacher/terse": 2 / 3}
COUNTED |= {"guidance/answers/chain": 7.0, "guidance/answers/terse": 14.0}


def test_answers_are_counts_of_the_run_and_not_made_of_means(tmp_path):
    line = {name: value for name, value in COUNTED.items() if name != "groups/sampled"}
    run = make(tmp_path / "ampo", "train", [train_line(1, **line)], guidance={})
    assert read_budget(run) == Budget(100, 60, 1, 21, ("chain", "terse"), 500, **UNKNOWN, runs=(str(run),))
    assert replacements(read_metrics(run)) == {"chain": 7, "terse": 14}


def test_a_run_that_began_under_an_older_release_has_steps_of_both_kinds(tmp_path):
    old = {**GUIDED, "guidance/replaced": 1.5, "guidance/teacher/chain": 0.25, "guidance/teacher/idle": 0.75}
    lines = [train_line(1, **old), train_line(2, **COUNTED), train_line(3, **{"guidance/replaced": 0.0})]
    run = make(tmp_path / "ampo", "train", lines, guidance={})
    found = read_budget(run)
    assert (found.teacher_answers, found.teacher_tokens, found.teachers) == (24 + 21, 1000, ("chain", "idle", "terse"))
    assert replacements(read_metrics(run)) == {"chain": 6 + 7, "idle": 18, "terse": 14}
    (run / "metrics.jsonl").write_text("".join(json.dumps(line | {"groups/sampled": None}) + "\n" for line in lines))
    assert replacements(read_metrics(run)) == {"chain": None, "idle": None, "terse": 14}
    assert read_budget(run).teacher_answers is None
    assert read_budget(run).teachers == ("chain", "idle", "terse")


@pytest.mark.parametrize("guidance", [None, {}])
def test_guidance_may_have_come_or_gone_while_the_run_went_on(tmp_path, guidance):
    run = make(tmp_path / "ampo", "train", [train_line(1), train_line(2, **COUNTED)], guidance=guidance)
    assert read_budget(run) == Budget(200, 120, 2, 21, ("chain", "terse"), 500, **UNKNOWN, runs=(str(run),))


def test_a_run_without_guidance_has_no_teacher(tmp_path):
    run = make(tmp_path / "grpo", "train", [train_line(1)], guidance=None)
    assert read_budget(run) == Budget(100, 60, 1, 0, (), 0, **UNKNOWN, runs=(str(run),))
    assert read_budget(run).line() == "1 step, 100 tokens generated, 60 tokens trained, 0 teacher answers"


def test_an_sft_run(tmp_path):
    run = sft_run(tmp_path / "sft")
    assert read_budget(run, step=1).teacher_answers == 4
    assert read_budget(run) == Budget(0, 80, 2, 7, ("chain",), 60, seconds=None, runs=(str(run),))
    assert read_budget(run).line() == (
        "2 steps, 0 tokens generated, 80 tokens trained, 7 teacher answers (60 tokens) of chain"
    )


def test_conversations_are_not_counted_as_answers_of_teachers(tmp_path):
    manifest = {"examples": {"count": 3, "teachers": {}}}
    run = make(
        tmp_path / "warmup", "sft", [sft_line(1)], manifest=manifest, data={"format": "messages"}, training=FOUR_A_STEP
    )
    found = read_budget(run)
    assert (found.teacher_answers, found.teacher_tokens, found.conversations) == (0, 0, 3)
    assert found.line().endswith("0 teacher answers; 3 conversations of unknown authors")
    old = make(
        tmp_path / "old", "sft", [{"step": 1, "tokens/trained": 1.0}], data={"format": "messages"}, training=FOUR_A_STEP
    )
    assert read_budget(old).line().endswith("0 teacher answers; conversations of unknown authors")


def test_what_was_not_recorded_is_unknown(tmp_path):
    old = {"tokens/trained": 40.0}
    lines = [{"step": 1, **old}, {"step": 2, **old, "tokens/answers": 3.0}]
    run = make(tmp_path / "sft", "sft", lines, data={"format": "pool"}, training=FOUR_A_STEP)
    found = read_budget(run)
    assert (found.teacher_answers, found.teacher_tokens) == (None, None)
    assert "an unknown number of teacher answers (tokens not recorded)" in found.line()
    later = make(tmp_path / "grpo", "train", [train_line(1)], guidance=None, model=str(policy(run, 2)))
    assert read_spent(later).total.teacher_answers is None
    assert read_spent(later).total.tokens_trained == 140
    line = {"guidance/replaced": 1.5, "guidance/teacher/chain": 1.0}
    guided = make(tmp_path / "ampo", "train", [train_line(1, **line)], guidance={})
    found = read_budget(guided)
    assert (found.teacher_answers, found.teacher_tokens, found.teachers) == (None, None, ("chain",))


def test_the_runs_before_count_up_to_the_checkpoint(tmp_path, monkeypatch):
    sft = sft_run(tmp_path / "runs" / "sft", steps=5)
    monkeypatch.chdir(tmp_path)
    start = "runs/sft/checkpoints/step-000003/policy"
    grpo = make(tmp_path / "runs" / "grpo", "train", [train_line(1)], guidance=None, model=start)
    more = make(tmp_path / "runs" / "more", "train", [train_line(1)], guidance=None, model=str(policy(grpo, 1)))
    monkeypatch.chdir("/")  # relative to the run's folder, or one around it
    spent = read_spent(more)
    total = spent.total
    assert (spent.own.steps, spent.own.tokens_trained, spent.own.runs) == (1, 60, (str(more),))
    assert (spent.before.steps, spent.before.runs) == (4, total.runs[1:])
    assert (total.steps, total.tokens_trained, total.tokens_generated) == (5, 60 + 60 + 3 * 40, 200)
    assert (total.teacher_answers, total.teacher_tokens, total.teachers) == (7, 90, ("chain",))
    assert total.runs == (str(more), str(grpo), str(tmp_path / "runs" / "sft"))
    assert total.missing == ()
    assert policy_spent(policy(more, 1)) == spent
    assert run_of_policy(policy(sft, 3)) == (sft, 3)
    found = json.loads(json.dumps(spent.as_json()))
    assert (found["teachers"], found["own"]["steps"], found["before"]["steps"]) == (["chain"], 1, 4)
    assert spent.lines()[1].startswith("made from 2 runs (grpo, sft): 4 steps, ")


WORDS = """\
4 steps, 16 questions, 128 rollouts, 400 tokens generated, 240 tokens trained, 2 teacher answers (9 tokens) of chain, \
1m00s in steps
made from warmup: 800 steps, 0 tokens generated, 32,000 tokens trained, 0 teacher answers, 3m20s in steps; \
25,600 conversations of unknown authors
together: 804 steps, 16 questions, 128 rollouts, 400 tokens generated, 32,240 tokens trained, \
2 teacher answers (9 tokens) of chain, 4m20s in steps; 25,600 conversations of unknown authors"""


def test_a_short_run_says_what_it_spent_itself_before_what_it_was_made_from(tmp_path):
    training = {"batch": 8, "accumulation": 4}
    lines = [{**sft_line(step), "time/step_s": 0.25} for step in range(1, 801)]
    manifest = {"examples": {"count": 30_000, "teachers": {}}}
    sft = make(tmp_path / "warmup", "sft", lines, manifest=manifest, data={"format": "messages"}, training=training)
    more = {"groups/sampled": 4.0, "time/step_s": 15.0}
    lines = [train_line(step, **more) for step in range(1, 5)]
    lines[2] |= {"guidance/answers/chain": 2.0, "tokens/teacher": 9.0}
    run = make(tmp_path / "four", "train", lines, rollout={"group_size": 8}, model=str(policy(sft, 800)))
    assert "\n".join(read_spent(run).lines()) == WORDS
    assert read_spent(sft).lines() == [read_budget(sft).line()]
    (run / "history").mkdir()
    mark(run, 2, [("rollout.group_size", 4, 8)])
    assert (read_budget(run).rollouts, read_budget(run).questions) == (None, 16)


def test_times_add_up_as_they_are_shown_and_a_card_has_none(tmp_path):
    training = {"batch": 8, "accumulation": 4}
    lines = [{**sft_line(1), "time/step_s": 188.4}]
    sft = make(tmp_path / "sft", "sft", lines, data={"format": "messages"}, training=training)
    lines = [{**train_line(1), "time/step_s": 41.24}]
    spent = read_spent(make(tmp_path / "run", "train", lines, model=str(policy(sft, 1))))
    shown = [re.search(r"([0-9.ms]+) in steps", line)[1] for line in spent.lines()]
    assert shown == ["41.2s", "3m08s", "3m49s"]  # and not 3m50s
    text = spent_table({"run": spent.as_json()}, {})
    assert "3m49s" in text
    assert "3m50s" not in text
    assert not any("in steps" in line for line in spent.without_time().lines())


def test_a_pipeline_has_the_budget_of_its_last_trained_stage(tmp_path):
    stages = [{"name": name} for name in ("sft", "grpo", "evaluate", "later")]
    pipeline = make(tmp_path / "pipeline", "pipeline", [], stages=stages)
    with pytest.raises(ConfigError, match="no stage of this pipeline has trained"):
        read_spent(pipeline)
    sft = sft_run(pipeline / "sft")
    grpo = make(pipeline / "grpo", "train", [train_line(1)], guidance=None, model=str(policy(sft, 2)))
    make(pipeline / "evaluate", "evaluate", [])
    assert read_spent(pipeline).total == read_spent(grpo).total
    assert read_spent(pipeline).total.steps == 3


def test_a_run_before_that_is_gone_is_said(tmp_path):
    sft = sft_run(tmp_path / "sft")
    start = policy(sft, 2)
    grpo = make(tmp_path / "grpo", "train", [train_line(1)], guidance=None, model=str(start))
    (sft / "config.yaml").unlink()
    assert read_spent(grpo).total.missing == (str(start),)
    shutil.rmtree(sft)
    total = read_spent(grpo).total
    assert (total.missing, total.steps) == ((str(start),), 1)
    gone = f"not counted, for it is not there: {start}"
    assert total.line().endswith(f"; {gone}")
    assert read_spent(grpo).lines() == [read_budget(grpo).line(), f"made from {gone}"]


def test_a_run_that_names_itself_ends(tmp_path):
    run = make(tmp_path / "a", "train", [train_line(1)], guidance=None, model=str(policy(tmp_path / "a", 1)))
    assert read_spent(run).total.missing == (str(policy(run, 1)),)


def test_a_model_from_elsewhere_has_no_budget(tmp_path):
    run = make(tmp_path / "grpo", "train", [train_line(1)], guidance=None, model=str(tmp_path / "policy"))
    assert read_spent(run).total.missing == ()
    assert policy_spent(tmp_path / "policy") is None
    assert policy_spent(tmp_path / "checkpoints" / "step-000001" / "policy") is None


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    run = sft_run(tmp_path / "sft")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "tok')
    assert read_budget(run).steps == 2
    (run / "metrics.jsonl").unlink()
    assert read_budget(run).steps == 0


def test_what_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"manifest\.json"):
        read_budget(tmp_path)
    prepared = make(tmp_path / "prepare", "prepare", [])
    with pytest.raises(ConfigError, match="only train and sft"):
        read_budget(prepared)
    run = make(tmp_path / "sft", "sft", [{"step": 1}], data={"format": "pool"}, training=FOUR_A_STEP)
    with pytest.raises(ConfigError, match="tokens/trained"):
        read_budget(run)
    (run / "metrics.jsonl").write_text("[]\n")
    with pytest.raises(ConfigError, match="line 1"):
        read_budget(run)


@pytest.mark.process
def test_it_needs_no_torch():
    code = "import sys, ampo_core.report.budget; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
