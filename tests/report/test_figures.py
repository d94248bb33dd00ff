"""Metrics as figures: smoothing, seeds, axes, and what is left out."""

import json

import pytest

from ampo_core.report.curves import RunCurves
from ampo_core.report.figures import Line, Panel, held_out_panels, last_part, metric_figure, running_mean, shown
from ampo_core.report.training import guidance_section, health_section, replaced_by_teacher, time_section

STEPS = list(range(1, 41))


def line(name="a", order=0, **series):
    return Line(name, [RunCurves(name, {key.replace("__", "/"): value for key, value in series.items()})], order)


def test_one_run_is_a_faint_line_and_its_running_mean():
    values = [(step, float(step % 2)) for step in STEPS]
    figure = metric_figure(
        Panel("reward/mean", "Reward", "mean reward", paper="Figure 4(a)"), [line(reward__mean=values)]
    )
    raw, mean = figure.traces
    assert raw["meta"] == {"run": 0, "raw": True}
    assert raw["y"] == [value for _, value in values]
    assert mean["y"] == pytest.approx(running_mean([v for _, v in values], 3), rel=1e-4)
    assert (raw["line"]["color"], mean["line"]["color"]) == ("$0/0.28", "$0")
    assert figure.caption == "1 → 0.5 · as in Figure 4(a) of the paper"


def test_seeds_are_a_mean_and_a_band_over_those_that_got_there():
    seeds = [RunCurves("a", {"eval/x/avg@8": [(0, 0.1), (10, 0.5)]}), RunCurves("a", {"eval/x/avg@8": [(0, 0.3)]})]
    figure = metric_figure(Panel("eval/x/avg@8", "x", share=True), [Line("a", seeds, 1)])
    low, high, mean = figure.traces
    assert (low["y"], high["y"], mean["y"]) == ([0.1, 0.5], [0.3, 0.5], [0.2, 0.5])
    assert high["fill"] == "tonexty"
    assert mean["line"] == {"color": "$1", "dash": "dash", "width": 2}


def test_the_mean_over_sets_is_a_panel_where_there_are_several():
    one = {"eval__x__avg@1": [(0, 1.0)], "eval__macro__avg": [(0, 1.0)]}
    assert [panel.metric for panel in held_out_panels([line(**one)])] == ["eval/x/avg@1"]
    several = [line(**one), line(**{"eval__y__avg@1": [(0, 1.0)], "eval__group__avg": [(0, 1.0)]})]
    assert [panel.metric for panel in held_out_panels(several)] == [
        "eval/x/avg@1",
        "eval/y/avg@1",
        "eval/macro/avg",
        "eval/group/avg",
    ]


def test_running_mean():
    assert running_mean([1.0, 2.0, 3.0, 4.0], 3) == [1.5, 2.0, 3.0, 3.5]
    assert running_mean([1.0, 5.0], 1) == [1.0, 5.0]


def test_what_has_no_number_has_no_figure_and_one_number_is_a_point():
    assert metric_figure(Panel("reward/mean", "Reward"), [line()]) is None
    (only,) = metric_figure(Panel("reward/mean", "Reward"), [line(reward__mean=[(1, 0.5)])]).traces
    assert only["mode"] == "markers"


def test_spikes_make_the_axis_logarithmic_and_it_is_said():
    values = [(step, 100.0 if step == 20 else 0.5) for step in STEPS]
    panel = Panel("policy/grad_norm", "Gradient norm", may_be_logarithmic=True)
    figure = metric_figure(panel, [line(policy__grad_norm=values)])
    assert figure.layout["yaxis"]["type"] == "log"
    assert "logarithmic axis" in figure.caption
    calm = metric_figure(panel, [line(policy__grad_norm=[(s, 0.5) for s in STEPS])])
    assert "type" not in calm.layout["yaxis"]


def test_replacements_of_a_teacher_are_its_share_times_those_of_the_step():
    curves = RunCurves(
        "a",
        {
            "guidance/triggered": [(1, 0.5), (2, 0.5), (3, 0.0)],
            "guidance/replaced": [(1, 2.0), (2, 1.0), (3, 0.0)],
            "guidance/teacher/x": [(1, 0.25), (2, 1.0)],
            "guidance/teacher/y": [(1, 0.75)],
            "groups/sampled": [(1, 4.0), (2, 16.0), (3, 4.0)],
        },
    )
    assert replaced_by_teacher(curves) == {"x": [(1, 0.5), (2, 1.0), (3, 0.0)], "y": [(1, 1.5), (2, 0.0), (3, 0.0)]}
    section = guidance_section(curves, None)
    assert "75.0 %" in section.after  # 18 of 24, for the second step has four times the groups
    assert guidance_section(RunCurves("a", {"reward/mean": [(1, 0.1)]}), None) is None


def test_time_adds_up_with_what_no_hop_has():
    curves = RunCurves("a", {"time/rollout_s": [(1, 1.0)], "time/update_s": [(1, 2.0)], "time/step_s": [(1, 4.0)]})
    section = time_section(curves)
    assert {trace["name"]: trace["y"] for trace in section.figures[0].traces} == {
        "sampling": [1.0],
        "update": [2.0],
        "other": [1.0],
    }
    assert "50.0 %" in section.after
    assert time_section(RunCurves("a", {})) is None


def test_health_says_what_never_changed_and_what_was_not_finite():
    series = {
        "verifier/timeouts": [(1, 0.0), (2, 0.0)],
        "verifier/errors": [(1, 0.0), (2, 0.0)],
        "policy/clip_fraction": [(1, 0.0), (2, 0.1)],
    }
    section = health_section(RunCurves("a", series, {"policy/grad_norm": 3}, torn=True))
    assert [figure.id for figure in section.figures] == ["policy/clip_fraction"]
    assert "Always 0: verifier timeouts, verifier errors." in section.html
    assert "policy/grad_norm (3)" in section.html
    assert "was not whole" in section.html
    assert not section.folded
    assert health_section(RunCurves("a", {})) is None


def test_numbers_for_a_person():
    assert [shown(value) for value in (None, 0.0, 1234567.8, 0.123456, 41.0)] == ["–", "0", "1,234,568", "0.123", "41"]
    assert shown(0.5, share=True) == "50.0 %"
    assert last_part([(s, float(s)) for s in range(1, 21)]) == 19.5


def test_figures_are_plain_data():
    figure = metric_figure(Panel("reward/mean", "Reward"), [line(reward__mean=[(s, 0.1) for s in STEPS])])
    assert json.loads(json.dumps(figure.as_json(), allow_nan=False))["id"] == "reward/mean"
