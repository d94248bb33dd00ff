"""The page as text: what it says, that no text becomes HTML, and that a failure stops no run."""

import base64
import gzip
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ampo_registry import ConfigError

from ampo_core.cli import main as cli
from ampo_core.config.moved import in_keys_of_today
from ampo_core.report import build
from ampo_core.report.build import refresh_report, write_report
from ampo_core.report.library import plotting_library, script_hash
from ampo_core.report.page import script_safe

from .conftest import EVIL, describe, write_evaluation, write_lines, write_run


def words(path):
    """What a reader sees of the page's HTML, and its data."""
    html = path.read_text()
    body = html[html.index("<body>") : html.index('<script type="application/json"')]
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)[1]
    return re.sub(r"<[^>]*>", " ", body), json.loads(data), html


def test_a_run(run):
    text, data, html = words(write_report([run]))
    for said in ("train run, finished", "comprehension selector", "8 questions × 4 rollouts, 2 updates"):
        assert said in text
    own = "40 steps, 320 questions, 1,280 rollouts, 4,000 tokens generated, 12,000 tokens trained, 320 teacher answers"
    assert own in text
    assert "made from" not in text
    assert "Shown: 240 of 320 that were written" in text
    assert len(data["rows"]) == 240
    assert data["teachers"] == ["<b>terse</b>", "chain"]
    assert "replacements: 2" in html


def test_what_was_warned_of_at_the_start_stands_first_and_once(tmp_path):
    runs = [write_run(tmp_path / name, steps=2) for name in ("a", "b")]
    for run, notes in zip(runs, (["both <answer>", "one"], ["both <answer>"]), strict=True):
        manifest = json.loads((run / "manifest.json").read_text())
        (run / "manifest.json").write_text(json.dumps({**manifest, "notes": notes}))
    assert "Warned of at the start: both &lt;answer&gt; one" in " ".join(words(write_report([runs[0]]))[0].split())
    assert "Warned of at the start: both &lt;answer&gt; a: one" in " ".join(words(write_report(runs))[0].split())


def test_a_runs_own_figures_stand_before_those_of_the_runs_that_it_was_made_from(tmp_path):
    write_run(tmp_path / "warmup", steps=30, guided=False, evaluated=False)
    short = write_run(tmp_path / "short", steps=4, guided=False, evaluated=False)
    config = yaml.safe_load((short / "config.yaml").read_text())
    start = tmp_path / "warmup/checkpoints/step-000020/policy"
    start.mkdir(parents=True)
    (short / "config.yaml").write_text(yaml.safe_dump({**config, "model": {"path": str(start)}}))
    text = " ".join(words(write_report([short]))[0].split())
    assert (
        "spent 4 steps, 32 questions, 128 rollouts, 400 tokens generated, 1,200 tokens trained, 0 teacher answers, "
        "14.0s in steps made from warmup: 20 steps, 160 questions, 640 rollouts, 2,000 tokens generated, 6,000 tokens "
        "trained, 0 teacher answers, 1m10s in steps together 24 steps, 192 questions, "
    ) in text
    text = " ".join(words(write_report([tmp_path / "warmup", short]))[0].split())
    assert (
        "short 4 32 128 400 1,200 0 0 14.0s ↳ made from warmup 20 160 640 2,000 6,000 0 0 1m10s "
        "↳ together 24 192 768 2,400 7,200 0 0 1m24s"
    ) in text
    assert "warmup 30 240 960 3,000 9,000 0 0 1m45s short" in text


def test_texts_stay_texts(run):
    _, data, html = words(write_report([run]))
    assert EVIL in {row["text"] for row in data["rows"]}
    assert html.count("</script>") == html.count("<script") == 3
    assert "<b>terse</b>" not in html
    assert "&lt;b&gt;terse&lt;/b&gt;" in html


def test_script_safe_json_cannot_end_its_block():
    text = script_safe({"a": "</script><!--\u2028"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><!--\u2028"}
    with pytest.raises(ValueError, match="JSON"):
        script_safe(float("nan"))


def test_the_policy_allows_the_pages_two_scripts_and_no_network(run):
    _, _, html = words(write_report([run]))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy.split(";")[1]
    script = re.search(r"<script>(.*?)</script>", html, re.S)[1]
    library = gzip.decompress(base64.b64decode(re.search(r'id="library">([^<]*)<', html)[1]))
    assert script_hash(script.encode()) in policy
    assert script_hash(library) == plotting_library().hash
    assert b"Plotly" in library
    assert not re.search(r'(src|href)="(?!#)', html)


def test_a_pipeline_compares_its_runs(pipeline):
    text, data, _ = words(write_report([pipeline]))
    for said in ("pipeline of 4 runs", "Where they ended", "Differences in config", "guidance.replacements"):
        assert said in text
    assert "easy: ampo is ahead of start by 10.0 points." in text
    assert "held-out mean" in text
    assert re.search(r"ampo\s+40\s+52.5 \[47.5, 57.5\]\s+70.0 %", text)
    assert re.search(r"chain\s+3\s+9.5", text)
    bars = next(figure for figure in data["figures"] if figure["id"] == "sets")["data"]
    colours = {trace["name"]: trace["marker"]["color"] for trace in bars}
    assert colours == {"start": "$2/0.85", "grpo": "$0/0.85", "ampo": "$1/0.85"}  # as the runs in the curves
    curve = next(figure for figure in data["figures"] if figure["id"] == "pass-hard")["data"][2]
    assert (curve["x"], curve["y"]) == ([1, 4, 8], [0.1, 0.2, 0.3])


def test_a_suite_gathers_seeds(suite):
    text, data, _ = words(write_report([suite]))
    assert "suite of 4 runs, up to 2 seeds each" in text
    assert re.search(r"not finished\s+grpo \(seed-1\)", text)
    assert "32.5 [25, 40]" in text
    assert re.search(r"lowest and highest seed", text)
    bars = next(figure for figure in data["figures"] if figure["id"] == "sets")["data"]
    assert bars[0]["y"][0] == 0.35


def test_beside_several_seeds_a_single_one_has_no_width(suite):
    shutil.rmtree(suite / "seed-1/evaluations/sampled/grpo")
    text, _, _ = words(write_report([suite]))
    assert "35.0 [30.0, 40.0]" in text
    assert "30.0 [30.0, 30.0]" in text
    assert "lowest and highest seed, the same where there is one seed only" in text
    assert "95 % bootstrap" not in text


def test_many_runs_wait_for_a_click_and_settings_are_gathered_by_value(tmp_path):
    folders = [write_run(tmp_path / f"run{i}", steps=3, guided=i > 0, evaluated=False) for i in range(8)]
    text, data, _ = words(write_report(folders))
    assert data["hidden"] == [6, 7]
    assert re.search(r"guidance.replacements\s+2\s+the other 7 runs\s+–\s+run0", text)


def test_an_evaluation(tmp_path):
    text, data, _ = words(write_report([write_evaluation(tmp_path / "e", {"start": 0.2, "ampo": 0.5})]))
    assert "50.0 [45.0, 55.0]" in text
    assert "+10.0 [+5.0, +20.0]" in text
    assert [figure["id"] for figure in data["figures"]] == ["sets", "pass-easy", "pass-hard", "pass-macro"]


def test_a_long_pass_curve_is_drawn_whole_and_marked_at_some_places(tmp_path):
    folder = write_evaluation(tmp_path / "e", {"ampo": 0.2})
    found = json.loads((folder / "results.json").read_text())
    found["models"]["ampo"]["easy"]["pass_at"] = {
        str(k): {"value": k / 256, "low": 0.0, "high": 1.0} for k in range(1, 257)
    }
    found["budgets"] = {"ampo": {"steps": 7, "tokens_generated": 1234, "teacher_tokens": None, "missing": ["x/y"]}}
    (folder / "results.json").write_text(json.dumps(found))
    text, data, _ = words(write_report([folder]))
    figure = next(figure for figure in data["figures"] if figure["id"] == "pass-easy")
    assert len(figure["data"][2]["x"]) == 256
    assert figure["layout"]["xaxis"]["tickvals"] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert re.search(r"pass@1\s+pass@16\s+pass@256", text)
    assert re.search(r"ampo\s+7\s+not known\s+not known\s+1,234\s+not known", text)
    assert "ampo: not counted, for it is not there: x/y." in text


def test_a_run_that_has_just_begun(run):
    (run / "done").unlink()
    for name in ("metrics.jsonl", "samples.jsonl"):
        (run / name).unlink()
    text, data, _ = words(write_report([run]))
    assert "train run, not finished, after step 0 of 40" in text
    assert "No step is done yet." in text
    assert data["figures"] == []


def test_numbers_that_are_not_finite_are_left_out_and_said(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    broken = [line.replace('"policy/grad_norm": 90.0', '"policy/grad_norm": null') for line in lines]
    (run / "metrics.jsonl").write_text("\n".join(broken) + "\n")
    text, _, _ = words(write_report([run]))
    assert "Not a finite number, and left out of the figures (steps): policy/grad_norm (1)." in text


def test_an_empty_evaluation_or_pipeline(tmp_path):
    describe(tmp_path / "e", {"job": "evaluate"})
    assert "No results have been written yet." in words(write_report([tmp_path / "e"]))[0]
    describe(tmp_path / "p", {"job": "pipeline", "stages": []})
    with pytest.raises(ConfigError, match="p holds no runs yet"):
        write_report([tmp_path / "p"])


def test_a_failure_is_said_and_stops_nothing(run, monkeypatch):
    said = []
    assert refresh_report(run, said.append) == run / "report.html"
    assert refresh_report(run, said.append, quiet=True)
    assert said == [f"report: {run}/report.html"]

    def fails(_):
        raise ZeroDivisionError

    monkeypatch.setattr(build, "build_page", fails)
    assert refresh_report(run, said.append) is None
    assert said[1:] == [f"the report of {run} could not be written: ZeroDivisionError()"]


def test_the_command_line(pipeline, tmp_path, capsys):
    assert cli.main(["--report", str(pipeline)]) == 0
    assert capsys.readouterr().out == f"{pipeline}/report.html\n"
    assert cli.main(["--report", str(pipeline / "grpo"), str(pipeline / "ampo")]) == 0
    assert capsys.readouterr().out == f"{pipeline}/comparison.html\n"
    assert cli.main(["--report", str(pipeline / "ampo"), "--out", str(tmp_path / "x.html")]) == 0
    assert (tmp_path / "x.html").stat().st_size < 2_500_000
    capsys.readouterr()
    for arguments, said in (
        (["--report", str(pipeline / "amp")], f"did you mean {pipeline}/ampo?"),
        (["--report", str(pipeline), "--out", str(tmp_path / "no/x.html")], f"there is no folder {tmp_path}/no"),
        (["--report", str(pipeline), str(pipeline)], "one folder is named twice"),
        (["c.yaml", "--report", str(pipeline)], "takes run folders only, found 'c.yaml'"),
    ):
        assert cli.main(arguments) == 2
        assert said in capsys.readouterr().err


@pytest.mark.process
def test_nothing_heavy_is_imported(run):
    code = (
        "import sys\nfrom ampo_core.cli.main import main\n"
        f"assert main(['--report', {str(run)!r}]) == 0\n"
        "print([n for n in ('torch', 'transformers', 'vllm', 'matplotlib', 'plotly', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


SEAMS = """
guidance:
  threshold: {type: linear, start: 0.4, end: 0.9, steps: null, delay: 0}
  replacements: {type: piecewise, start: 1, at: [[10, 2]]}
  intervention: {type: prefix, share: {type: linear, start: 1.0, end: 0.0}, train: off_policy}
reward: {type: math_verify, format_weight: 0.1}
objective:
  on_policy: {weight: unit}
  off_policy: {weight: {type: cosine, start: 1.0, end: 0.05, steps: 200}}
  auxiliary: {sft: {loss: {type: nll}, samples: guidance, weight: 0.5}}
"""


def test_schedules_terms_and_metrics_of_plugins(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    seams = yaml.safe_load(SEAMS)
    config["guidance"] |= seams.pop("guidance")
    (run / "config.yaml").write_text(yaml.safe_dump(config | seams, sort_keys=False))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    terms = {f"policy/loss/{name}": 0.1 for name in ("on_policy", "off_policy", "sft")}
    lines = [{**line, **terms, "prefix/share": 1 - line["step"] / 40} for line in lines]
    write_lines(run / "metrics.jsonl", lines)
    text, data, html = words(write_report([run]))
    text = " ".join(text.split())
    for said in (
        "up to piecewise (start 1, at [[10, 2]]) answers a group",
        "intervention prefix (share linear (start 1.0, end 0.0), train off_policy)",
        "sft: nll on guidance, weight 0.5",
        "guidance.threshold: linear (start 0.4, end 0.9, delay 0)",
        "objective.off_policy.weight: cosine (start 1.0, end 0.05, steps 200)",
        "Loss of the term sft",
        "Metrics of plugins",
    ):
        assert said in text, said
    assert {"policy/loss/sft", "prefix/share"} <= {figure["id"] for figure in data["figures"]}
    assert data["threshold"] == 0.9
    assert "Loss of the term" not in html.replace("Loss of the term sft", "").replace("Loss of the term o", "")


def with_metrics(run, **metrics):
    """Add metrics (name with __ for /: a function of the step) to every line of a run."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    named = {name.replace("__", "/"): value for name, value in metrics.items()}
    lines = [{**line, **{name: value(line["step"]) for name, value in named.items()}} for line in lines]
    write_lines(run / "metrics.jsonl", [{k: v for k, v in line.items() if v != "none"} for line in lines])


def groups_of(html):
    """(open, heading, figures) of each group."""
    found = re.findall(r"<details class=group( open)?><summary>(.*?)</summary>(.*?)</details>", html, re.S)
    return [(bool(shown), title, re.findall(r'data-figure="([^"]*)"', inner)) for shown, title, inner in found]


def test_dozens_of_metrics_of_plugins_are_grouped_by_their_prefix_behind_a_click(tmp_path):
    many = {f"judge__kl_{i:02}": lambda step: step / 2 for i in range(30)}
    more = {
        "mine__gap": lambda step: None if step == 7 else step if step % 3 else "none",
        "mine__never": lambda step: None,
        "policy__spread": float,
        "policy__spread__sft": float,
        "eval__easy__mine__steps": lambda step: float(step) if step in (0, 40) else "none",
    }
    runs = [write_run(tmp_path / name) for name in ("one", "two")]
    with_metrics(runs[0], **many, **more)
    with_metrics(runs[1], mine__gap=float)
    for folders in ([runs[0]], runs):
        text, data, html = words(write_report(folders))
        assert [(shown, title) for shown, title, _ in groups_of(html)] == [
            (False, "judge · 30 metrics: kl_00, kl_01, kl_02, kl_03, kl_04, kl_05, kl_06, kl_07, …"),
            (False, "mine · 1 metric: gap"),
            (False, "held-out easy · 1 metric: eval/easy/mine/steps"),
            (False, "measured by losses · 2 metrics: policy/spread, policy/spread/sft"),
        ]
        ids = [figure["id"] for figure in data["figures"]]
        assert len(set(ids)) == len(ids)
        assert {"judge/kl_29", "mine/gap", "policy/spread/sft", "eval/easy/mine/steps"} < set(ids)
        assert ids.index("reward/mean") < ids.index("judge/kl_00") < ids.index("mine/gap")
        assert "mine/never (41)" in text
        assert "mine/gap (1)" in text
    figure = next(figure for figure in data["figures"] if figure["id"] == "mine/gap")
    assert 7 not in figure["data"][0]["x"]
    assert [trace["meta"]["run"] for trace in figure["data"]] == [0, 0, 1, 1]


def test_a_few_metrics_of_plugins_are_open(run):
    with_metrics(run, prefix__share=float)
    _, _, html = words(write_report([run]))
    assert groups_of(html) == [(True, "prefix · 1 metric: share", ["prefix/share"])]


def test_a_run_without_further_terms_shows_none(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    terms = {f"policy/loss/{name}": 0.1 for name in ("on_policy", "off_policy")}
    write_lines(run / "metrics.jsonl", [{**line, **terms} for line in lines])
    text, _, _ = words(write_report([run]))
    assert "Loss of the term" not in text
    assert "Metrics of plugins" not in text


OLD = Path(__file__).parents[1] / "release_0_1" / "run"


def test_a_run_of_release_0_1_alone_beside_one_of_today_and_in_a_suite(tmp_path):
    old, now = tmp_path / "suite" / "seed-0" / "old", tmp_path / "suite" / "seed-0" / "now"
    for folder in (old, now):
        shutil.copytree(OLD, folder)
    text, data, _ = words(write_report([old]))
    assert "3 steps" in text
    assert "comprehension selector, adaptive trigger, up to 2 answers a group" in text
    assert data["threshold"] == 0.6
    assert data["rows"]
    assert "Metrics of plugins" not in text
    config, moved = in_keys_of_today(yaml.safe_load(OLD.joinpath("config.yaml").read_text()))
    assert len(moved) == 6
    config["objective"]["on_policy"]["loss"]["high"] = 0.28
    (now / "config.yaml").write_text(yaml.safe_dump(config))
    for folders in ([old, now], [tmp_path / "suite"]):
        text, _, _ = words(write_report(folders))
        assert re.search(r"objective.on_policy.loss.high\s+0.2\s+0.28|objective.on_policy.loss.high\s+0.28\s+0.2", text)
        assert text.count("objective.") == 1
