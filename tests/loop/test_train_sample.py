"""`--sample`: what it shows is what the run's first step gets, nothing is left behind, and other jobs are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from ampo_registry import ConfigError
from rich.console import Console

from ampo_core.config.load import load_config
from ampo_core.data.order import QuestionStream
from ampo_core.jobs.sample.document import markdown
from ampo_core.jobs.sample.job import check_sample
from ampo_core.jobs.sample.train import first_hops, parts_of, without_repeats
from ampo_core.loop.assemble import assemble_sampling
from ampo_core.loop.metrics import group_report
from ampo_core.run.environment import Environment
from ampo_core.run.folder import POLICY_SOURCE
from tests.loop.worlds import metrics_of, run, train

ONE_STEP = {"training": {"steps": 1}, "tracking": []}
HINT = {"type": "hint", "sentences": 1, "template": "{question}{hint}", "train": "original"}


@pytest.mark.process
@pytest.mark.parametrize("blocks", [{}, {"guidance": {"intervention": HINT}}], ids=["ampo", "hint"])
def test_it_is_what_the_first_step_gets(tmp_path, plugins, world, student, blocks):
    config = train(world, student, **ONE_STEP, **blocks)
    policy, _ = run(config, tmp_path, plugins)
    loaded = load_config(tmp_path / "config.yaml", [], plugins)
    with assemble_sampling(loaded.job, Environment.of(loaded, plugins, console=Console(quiet=True))) as parts:
        first = first_hops(parts, 6)
    shown = parts.tokenizer.shown
    reports = [group_report(one.guided) for one in first.questions]
    seen = {
        (report.question.uid, *report_of, shown(read), shown(prompt))
        for report in reports
        for *report_of, read, prompt in zip(
            report.texts, report.rewards, report.sources, report.scores, report.read, report.prompts, strict=True
        )
    }
    hinted = {shown(read) for report in reports for read in report.read if read != report.question.prompt_token_ids}
    assert bool(hinted) == bool(blocks)
    assert all(re.fullmatch(r"<user>[^?]*\?.+<assistant>", read) for read in hinted)
    lines = (policy.parents[2] / "samples.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 8
    assert {
        (r["uid"], r["text"], r["reward"], r["teacher"] or POLICY_SOURCE, r["score"], r["read"],
         r.get("trained_under", r["read"]))
        for r in rows
    } <= seen  # fmt: skip
    (line,) = metrics_of(policy)
    assert {name: line[name] for name in first.metrics} == first.metrics


@pytest.mark.process
@pytest.mark.parametrize("guidance", [True, False], ids=["ampo", "grpo"])
def test_the_command_line_shows_it_and_leaves_nothing(tmp_path, forge, world, student, guidance):
    config = train(world, student, resources={"devices": 2}, **({} if guidance else {"guidance": None}))
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    done = forge.run("c.yaml", "--sample", "2", "--file", "seen.md", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"c.yaml", "seen.md"}
    seen = (tmp_path / "seen.md").read_text("utf-8")
    assert done.stdout == f"{seen}seen.md\n"
    assert "Sampled on one device; the run has 2." in seen
    assert "# 2 of 40 training questions, in the run's order" in seen
    assert "its own responses may differ, for another batch rounds differently." in seen
    assert seen.count("<assistant>\n```") == 2
    assert seen.count("| response | reward | verdict | format | tokens | finish reason |") == 2
    assert seen.count("### Guidance") == 2 * guidance
    assert ("as it is scored: log-probs" in seen) == guidance
    assert ("### What replace makes of the group" in seen) == guidance


@pytest.mark.process
@pytest.mark.parametrize(("count", "shown"), [(99, 40), (6, 6)])
def test_no_question_is_asked_twice_and_only_the_batch_of_the_run_has_its_responses(
    tmp_path, plugins, world, student, count, shown
):
    config = train(world, student, guidance=None, rollout={"max_response_tokens": 4})
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    loaded = load_config(tmp_path / "c.yaml", [], plugins)
    parts = [*parts_of(loaded.job, Environment.of(loaded, plugins, console=Console(quiet=True)), count)]
    text = markdown(parts)
    assert text.count("\n## Question ") == shown
    assert ("its responses are these" in text) == (count == 6)
    assert ("--sample 99: no more than these are shown" in text) == (count == 99)


def test_weights_bring_questions_back_before_all_were_there():
    order = QuestionStream([9, 2], seed=1, weights=[1.0, 1.0])
    assert without_repeats(order.take(0, 9)) in (4, 5)
    assert without_repeats(order.take(0, 3)) == 3


def test_each_file_is_named_once_with_its_stages(tmp_path, plugins):
    (tmp_path / "stage.yaml").write_text(yaml.safe_dump(train(tmp_path, tmp_path)))
    stages = [{"name": name, "config": "stage.yaml"} for name in ("one", "two")]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump({"job": "pipeline", "run": {"name": "p"}, "stages": stages}))
    said = load_config(tmp_path / "all.yaml", [], plugins).job.unshown()
    assert "stage.yaml for one and two) with" in said
    assert said.count("stage.yaml") == 1


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            "configs/quickstart/warmup.yaml",
            "--sample: it shows jobs of the kinds train and evaluate, and this one is of the kind sft",
        ),
        (
            "configs/quickstart.yaml",
            "of the kind pipeline: name the config of one of its parts (configs/quickstart/prepare.yaml for prepare, c",
        ),
        ("configs/suites/small_world.yaml", "seed-0/NAME/config.yaml, once the part has begun"),
    ],
)
def test_other_jobs_are_refused_with_what_would_work(monkeypatch, plugins, config, said):
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(ConfigError) as found:
        check_sample(load_config(Path(config), [], plugins).job, 2, None)
    assert said in str(found.value)
