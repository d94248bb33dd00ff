"""Training curves: what is read, which panels are drawn, and that a picture comes out."""

import json

import pytest
from ampo_registry import ConfigError

from ampo_core.report.curves import RunCurves, check_runs, choose_panels, draw_curves, read_run, running_mean


def write_run(folder, lines):
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def run(tmp_path):
    lines = [{"step": 0, "eval/l4/avg@8": 0.02, "eval/l5/avg@8": 0.01, "eval/macro/avg": 0.015}]
    for step in range(1, 41):
        lines.append({"step": step, "reward/accuracy": step / 50, "policy/entropy": 1.0, "reward/mean": 0.1})
    lines[20]["policy/entropy"] = None
    lines.append({"step": 40, "eval/l4/avg@8": 0.8, "eval/l5/avg@8": 0.5, "eval/macro/avg": 0.65})
    return write_run(tmp_path / "run", lines)


def test_series_by_metric_without_what_was_not_finite(run):
    curves = read_run("ampo", run)
    assert curves.series["eval/l4/avg@8"] == [(0, 0.02), (40, 0.8)]
    assert len(curves.series["policy/entropy"]) == 39
    assert curves.series["reward/accuracy"][0] == (1, 0.02)


def test_panels_are_those_that_some_run_has_numbers_for(run):
    other = RunCurves("grpo", {"guidance/triggered": [(1, 0.5)]})
    assert list(choose_panels([read_run("ampo", run), other])) == [
        "eval/l4/avg@8",
        "eval/l5/avg@8",
        "eval/macro/avg",
        "reward/accuracy",
        "guidance/triggered",
        "policy/entropy",
    ]


def test_the_mean_over_one_set_is_no_panel():
    assert list(choose_panels([RunCurves("a", {"eval/x/avg@1": [(0, 1.0)], "eval/macro/avg": [(0, 1.0)]})])) == [
        "eval/x/avg@1"
    ]


def test_a_picture_is_drawn(run, tmp_path):
    from matplotlib.image import imread

    drawn = draw_curves([read_run("ampo", run), read_run("grpo", run)], tmp_path / "curves.png")
    assert len(drawn) == 5
    pixels = imread(tmp_path / "curves.png")
    assert pixels.shape[1] > 1500
    colours = {tuple(round(float(c), 1) for c in pixel[:3]) for pixel in pixels.reshape(-1, pixels.shape[2])[::7]}
    assert (0.0, 0.4, 0.7) in colours  # the first run's line


def test_running_mean():
    assert running_mean([1.0, 2.0, 3.0, 4.0], 3) == [1.5, 2.0, 3.0, 3.5]
    assert running_mean([1.0, 5.0], 1) == [1.0, 5.0]


def test_a_folder_without_metrics_or_with_bad_lines_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"comparison\.curves\.ampo: .*nowhere is no run folder"):
        check_runs({"ampo": str(tmp_path / "nowhere")})
    folder = write_run(tmp_path / "bad", [{"step": 1}])
    check_runs({"bad": str(folder)})
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("[1]\n")
    with pytest.raises(ConfigError, match="line 2: not a JSON object with a step: found list"):
        read_run("bad", folder)
