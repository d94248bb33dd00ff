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
from ampo_core.jobs.sample.job import check_sample
from ampo_core.jobs.sample.train import first_hops
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
    assert "# The first 2 of 40 training questions" in seen
    assert seen.count("<assistant>\n```") == 2
    assert seen.count("| response | reward | verdict | format | tokens | finish reason |") == 2
    assert seen.count("### Guidance") == 2 * guidance
    assert ("as it is scored: log-probs" in seen) == guidance
    assert ("### What replace makes of the group" in seen) == guidance


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("configs/quickstart/warmup.yaml", "--sample: it shows train and evaluate jobs, and this is a sft job"),
        ("configs/quickstart.yaml", "this is a pipeline job: name the config of one of its parts (configs/quickstart/"),
        ("configs/suites/small_world.yaml", "seed-0/NAME/config.yaml, once the part has begun"),
    ],
)
def test_other_jobs_are_refused_with_what_would_work(monkeypatch, plugins, config, said):
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(ConfigError) as found:
        check_sample(load_config(Path(config), [], plugins).job, 2, None)
    assert said in str(found.value)
