"""Pictures: which curves they show, as on the page, and that they come out; and how metrics are read."""

import json

import pytest
from ampo_registry import ConfigError

from ampo_core.report.curves import RunCurves, check_runs, read_run
from ampo_core.report.figures import Figure, Line
from ampo_core.report.pictures import draw, training_figures


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


def pixels(path):
    from matplotlib.image import imread

    return imread(path)


def colours(path):
    """Those of every seventh pixel, to a tenth."""
    image = pixels(path)
    return {tuple(round(float(c), 1) for c in pixel[:3]) for pixel in image.reshape(-1, image.shape[2])[::7]}


def test_training_curves_are_those_that_some_run_has_numbers_for(run):
    other = Line("grpo", [RunCurves("grpo", {"guidance/triggered": [(1, 0.5)]})], 1)
    assert {figure.id: figure.title for figure in training_figures([Line("ampo", [read_run("ampo", run)]), other])} == {
        "eval/l4/avg@8": "Held-out l4, avg@8",
        "eval/l5/avg@8": "Held-out l5, avg@8",
        "eval/macro/avg": "Held-out, mean over sets",
        "reward/accuracy": "Accuracy of the rollouts",
        "guidance/triggered": "Questions that needed guidance",
        "policy/entropy": "Entropy",
    }


def test_a_picture_is_drawn(run, tmp_path):
    figures = training_figures(
        [Line(name, [read_run(name, run)], order) for order, name in enumerate(("ampo", "grpo"))]
    )
    assert len(figures) == 5
    draw(figures, tmp_path / "curves.png")
    assert pixels(tmp_path / "curves.png").shape[1] > 1500
    assert (0.0, 0.4, 0.7) in colours(tmp_path / "curves.png")  # the first run's line


def test_several_seeds_have_a_band(tmp_path):
    seeds = [RunCurves("a", {"policy/entropy": [(step, value) for step in range(9)]}) for value in (1.0, 2.0)]
    draw(training_figures([Line("a", seeds[:1])]), tmp_path / "one.png")
    draw(training_figures([Line("a", seeds)]), tmp_path / "two.png")
    shade = (0.8, 0.9, 0.9)  # 0.18 of the first colour on white
    assert [shade in colours(tmp_path / name) for name in ("one.png", "two.png")] == [False, True]


def test_a_figure_has_the_size_and_the_ticks_that_its_layout_says(tmp_path):
    trace = {"mode": "markers", "x": [1, 2], "y": [0, 1], "marker": {"color": "$1", "size": 40}}
    ticks = {"tickvals": [0, 1], "ticktext": ["first", "second"], "range": [-1, 2]}
    layout = {"width": 960, "height": 192, "xaxis": {"type": "log", "title": {"text": "k"}}, "yaxis": ticks}
    draw([Figure("id", "title", "", [trace], layout)], tmp_path / "one.png")
    assert pixels(tmp_path / "one.png").shape[:2] == (375, 1500)
    assert (0.8, 0.4, 0.0) in colours(tmp_path / "one.png")


def test_nothing_to_draw_is_an_empty_picture(tmp_path):
    draw(training_figures([Line("a", [RunCurves("a", {"policy/loss": [(1, 0.5)]})])]), tmp_path / "none.png")
    assert colours(tmp_path / "none.png") == {(1.0, 1.0, 1.0)}


def test_a_folder_without_metrics_or_with_bad_lines_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"comparison\.curves\.ampo: .*nowhere is no run folder"):
        check_runs({"ampo": str(tmp_path / "nowhere")})
    folder = write_run(tmp_path / "bad", [{"step": 1}])
    check_runs({"bad": str(folder)})
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("[1]\n")
    with pytest.raises(ConfigError, match="line 2: not a JSON object with a step: found list"):
        read_run("bad", folder)
