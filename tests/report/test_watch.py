"""What is said of runs that learn nothing, judged from their metrics; and that nothing is said of those that do."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ampo_core.report.build import write_report
from ampo_core.report.signs import GUIDED, HELD_OUT, SIGNS, TRAINING
from ampo_core.report.watch import Watch

from .conftest import describe, write_lines, write_run

PAGE = Path(__file__).parents[2].joinpath("docs/loop.md").read_text(encoding="utf-8")
CONFIG = {
    "rollout": {"group_size": 8, "max_response_tokens": 112},
    "reward": {"format_weight": 0.1},
    "guidance": {"trigger": {"type": "adaptive"}},
    "objective": {"group_filter": None, "on_policy": {"mask_truncated": False}},
}
GRPO = {
    "reward/mean": 0.128,
    "reward/max": 1.0,
    "reward/accuracy": 0.031,
    "reward/format": 0.992,
    "response/length_mean": 12.0,
    "response/truncated": 0.008,
    "policy/entropy": 0.13,
    "policy/loss": 0.05,
    "policy/grad_norm": 0.3,
    "policy/empty_updates": 1.0,
    "policy/skipped_updates": 0.0,
    "policy/learning_rate": 2e-4,
    "groups/sampled": 16.0,
    "groups/trained": 16.0,
    "groups/with_signal": 3.0,
    "tokens/trained": 700.0,
    "verifier/timeouts": 1.0,
    "verifier/errors": 0.0,
}
"""The worst numbers of the quickstart's GRPO run, all in one step."""
AMPO = {
    **GRPO,
    "reward/accuracy": 0.055,
    "policy/entropy": 0.018,
    "guidance/triggered": 0.88,
    "guidance/replaced": 1.7,
    "guidance/format": 1.0,
    "guidance/scored": 40.0,
    "guidance/unscorable": 3.0,
    "guidance/left_out_overlong": 2.0,
    "guidance/left_out_incorrect": 4.0,
    "guidance/left_out_ungraded": 0.0,
}
SFT = {"policy/loss": 2.0, "policy/grad_norm": 4.0, "policy/skipped_updates": 0.0, "tokens/trained": 900.0}
WRONG = {"reward/accuracy": 0.0, "reward/mean": 0.1, "policy/entropy": 1.0}
NONE_IN = {"guidance/replaced": 0.0, "guidance/format": None}
BAD: dict[str, tuple[Mapping[str, Any], str]] = {
    "cut_off": (GRPO | {"response/truncated": 1.0}, "every response was cut off at rollout.max_response_tokens = 112"),
    "empty": (GRPO | {"response/length_mean": 1.0}, "every response was empty"),
    "no_verdict": (GRPO | {"verifier/timeouts": 125.0}, "hardly a verdict: 625 timeouts and 0 errors"),
    "collapsed": (GRPO | WRONG | {"policy/entropy": 0.0}, "collapsed: entropy 0.0000 nats a token"),
    "no_format": (GRPO | {"reward/format": 0.0}, "no response was in the asked format"),
    "no_reward": (GRPO | WRONG | {"reward/max": 0.0}, "no response earned more than 0"),
    "no_guidance": (AMPO | NONE_IN, "left out: 10 longer than rollout.max_response_tokens, 20 not verified as correct"),
    "unscorable": (AMPO | {"guidance/scored": 0.0}, "none of 15 candidates could be scored"),
    "teacher_format": (AMPO | {"guidance/format": 0.0}, "no teacher answer that was put in is in the asked format"),
    "not_triggered": (AMPO | WRONG | NONE_IN | {"guidance/triggered": 0.0}, "and yet no group got guidance"),
    "never_triggered": (AMPO | NONE_IN | {"guidance/triggered": 0.0}, "no group needed guidance"),
    "all_triggered": (AMPO | WRONG | {"guidance/triggered": 1.0}, "every group needed guidance: no response is right"),
    "right_is_wrong": (AMPO | {"guidance/triggered": 1.0}, "every group got guidance although responses are right"),
    "no_groups": (GRPO | {"groups/trained": 0.0, "groups/with_signal": 0.0}, "nothing in them has a verdict"),
    "no_advantage": (GRPO | {"groups/with_signal": 0.0}, "within each group the rewards are the same"),
    "no_tokens": (GRPO | {"tokens/trained": 0.0}, "every update was empty, 0 tokens were trained"),
    "never_right": (GRPO | WRONG, "no response was right"),
    "not_taught": (AMPO | WRONG, "although teacher answers are trained on"),
    "skipped": (GRPO | {"policy/skipped_updates": 2.0, "policy/grad_norm": math.nan}, "its gradient was not finite"),
    "no_gradient": (GRPO | {"policy/grad_norm": 0.0}, "the gradient was 0"),
}


def watched(*rows: Mapping[str, Any], job: str = "train", config: Mapping[str, Any] = CONFIG, start: int = 1) -> Watch:
    watch = Watch(job, config)
    for step, row in enumerate(rows, start):
        watch.see(step, row)
    return watch


def kinds(watch: Watch, *, finished: bool = False) -> list[str]:
    return [warning.kind for warning in watch.warnings(finished=finished)]


@pytest.mark.parametrize("sign", SIGNS["train"], ids=lambda sign: sign.kind)
def test_each_sign_is_said_alone_after_so_many_steps(sign):
    row, said = BAD[sign.kind]
    rows = [row] * sign.after
    assert kinds(watched(*rows)) == [sign.kind]
    assert kinds(watched(*rows[1:])) == []
    (warning,) = watched(*rows, *rows).warnings(finished=False)
    assert said in str(warning)
    assert str(warning).startswith(f"steps 1 to {2 * sign.after}: ")
    assert f"; look at {sign.look}" in str(warning)


@pytest.mark.parametrize("kind", BAD)
def test_a_short_run_that_shows_it_in_every_step_says_it_at_the_end(kind):
    row, _ = BAD[kind]
    assert kinds(watched(row, row), finished=True) == [kind]
    assert kinds(watched(row, AMPO), finished=True) == []
    assert str(watched(row).warnings(finished=True)[0]).startswith("step 1: ")


def test_what_is_explained_by_a_sign_that_is_not_said_is_said_at_the_end():
    nothing = GRPO | WRONG | {"reward/max": 0.0, "reward/format": 0.0, "groups/with_signal": 0.0}
    rows = [nothing | {"response/truncated": share} for share in (0.94, 1.0, 1.0)]
    assert kinds(watched(*rows)) == []
    (warning,) = watched(*rows).warnings(finished=True)
    assert (warning.kind, warning.first, warning.last, warning.steps) == ("no_format", 1, 3, 3)
    assert kinds(watched(*rows[1:]), finished=True) == ["cut_off"]


def test_every_sign_has_a_case():
    assert set(BAD) == {sign.kind for sign in SIGNS["train"]}


ROUTED = AMPO | WRONG | {"guidance/replaced": 0.0, "tokens/teacher": 90.0, "groups/trained": 0.0}
"""All groups failed, and auxiliary terms alone train the answers."""


def test_answers_that_auxiliary_terms_train_are_guidance():
    assert kinds(watched(*[ROUTED] * GUIDED)) == ["not_taught"]


@pytest.mark.parametrize("row", [GRPO, AMPO], ids=["grpo", "ampo"])
def test_a_run_that_learns_is_left_alone(row):
    assert kinds(watched(*[row] * 60), finished=True) == []


def test_hard_questions_alone_are_no_fault():
    luckless = [GRPO | WRONG | {"groups/with_signal": 1.0}] * 9
    assert kinds(watched(*luckless, GRPO, *luckless), finished=True) == []
    nothing = GRPO | WRONG | {"groups/with_signal": 0.0, "tokens/trained": 0.0, "policy/grad_norm": 0.0}
    assert kinds(watched(*[nothing] * 4, GRPO, *[nothing] * 4), finished=True) == []


def test_a_step_that_is_well_begins_the_count_again_and_all_that_was_said_is_counted():
    bad = BAD["cut_off"][0]
    watch = watched(*[bad] * 5, GRPO, *[bad] * 4, GRPO, *[bad] * 7)
    (warning,) = watch.warnings(finished=True)
    assert (warning.first, warning.last, warning.steps) == (1, 18, 12)
    assert str(warning).startswith("steps 1 to 18 (12 of them): ")


def test_a_warning_begins_once():
    watch, bad = Watch("train", CONFIG), BAD["cut_off"][0]
    begun = [len(watch.see(step, row)) for step, row in enumerate([bad] * 7 + [GRPO] + [bad] * 7, 1)]
    assert begun == [0] * 4 + [1] + [0] * 10


def test_what_explains_the_rest_is_said_alone():
    hopeless = {"response/truncated": 1.0, "reward/format": 0.0, "groups/with_signal": 0.0, **WRONG}
    assert kinds(watched(*[GRPO | hopeless] * 60)) == ["cut_off"]
    masked = {**CONFIG, "objective": {"on_policy": {"mask_truncated": True}}}
    watch = watched(*[GRPO | hopeless | {"tokens/trained": 0.0}] * 5, config=masked)
    assert kinds(watch) == ["cut_off", "no_tokens"]
    assert "mask_truncated leaves out what was cut off" in str(watch.warnings(finished=False)[1])


def test_a_format_that_earns_nothing_is_not_missed():
    free = {**CONFIG, "reward": {"format_weight": 0.0}}
    assert kinds(watched(*[AMPO | {"reward/format": 0.0, "guidance/format": 0.0}] * 9, config=free)) == []


def test_what_a_group_filter_drops_is_named():
    config = {**CONFIG, "objective": {"group_filter": {"drop": ["all_wrong", "all_correct"]}}}
    (warning,) = watched(*[GRPO | {"groups/trained": 0.0}] * 5, config=config).warnings(finished=False)
    assert "objective.group_filter drops what is all_wrong or all_correct" in warning.what


@pytest.mark.parametrize(("accuracy", "said"), [(0.0, "no response is right"), (1.0, "every response is right")])
def test_equal_rewards_say_whether_the_questions_are_too_hard_or_too_easy(accuracy, said):
    row = GRPO | {"groups/with_signal": 0.0, "reward/accuracy": accuracy, "tokens/trained": 0.0}
    (warning,) = watched(*[row] * 5).warnings(finished=False)
    assert warning.what == (
        f"every advantage was 0 and nothing was trained: within each group the rewards are the same, {said}"
    )


def test_teacher_answers_that_came_in_before_are_no_missing_ones():
    assert kinds(watched(AMPO, *[AMPO | NONE_IN] * 20), finished=True) == []


def test_an_sft_run_whose_loss_rises_says_so():
    rows = [SFT, *[SFT | {"policy/loss": 3.1}] * 5]
    (warning,) = watched(*rows, job="sft").warnings(finished=False)
    assert (warning.kind, warning.first, warning.last) == ("worse", 2, 6)
    assert "the loss is 3.10 nats a token, above 2.00 at the start" in warning.what
    assert kinds(watched(SFT, *[SFT | {"policy/loss": 2.9}] * 30, job="sft"), finished=True) == []
    assert kinds(watched(*[SFT | {"policy/grad_norm": 0.0}] * 5, job="sft")) == ["no_gradient"]


def test_a_held_out_set_is_judged_by_its_own_evaluations_and_reward():
    own = {"sets": {"plain": {"reward": {"format_weight": 0.0}}, "tagged": {"reward": None}}}
    found = {
        f"eval/{name}/{short}": value
        for name in own["sets"]
        for short, value in {"truncated": 0.0, "length_mean": 9.0, "format": 0.0}.items()
    }
    watch = watched(found, *[GRPO] * 9, found, *[GRPO] * 9, found, config={**CONFIG, "evaluation": own}, start=0)
    (warning,) = watch.warnings(finished=False)
    assert str(warning).startswith("steps 0 to 20 (3 of them): evaluation of tagged: no response was in the asked")
    assert kinds(watched(found, GRPO, found, config={**CONFIG, "evaluation": own}, start=0)) == []


def test_an_evaluate_job_says_it_of_each_model_and_set():
    cut = {"truncated": 1.0, "length_mean": 112.0, "format": 0.0}
    watch = Watch("evaluate", CONFIG)
    for model, values in {
        "a": cut,
        "b": cut | {"truncated": 0.1},
        "c": cut | {"truncated": 0.1, "format": 0.5},
    }.items():
        assert watch.see(0, {f"{model}/eval/aime/{short}": value for short, value in values.items()}) == []
    assert [str(warning).partition(";")[0] for warning in watch.warnings(finished=True)] == [
        "a on aime: every response was cut off",
        "b on aime: no response was in the asked format",
    ]


@pytest.mark.parametrize("stop", range(13))
def test_a_run_that_goes_on_says_what_one_says_that_was_left_alone(tmp_path, stop):
    rows = [AMPO, *[GRPO | {"response/truncated": 0.97}] * 6, *[BAD["skipped"][0]] * 5]
    lines = [{"step": step, **{k: v if v == v else None for k, v in row.items()}} for step, row in enumerate(rows, 1)]
    write_lines(tmp_path / "metrics.jsonl", lines[:stop])
    watch = Watch.over("train", CONFIG, tmp_path)
    for step, row in list(enumerate(rows, 1))[stop:]:
        watch.see(step, row)
    assert watch.warnings(finished=True) == watched(*rows).warnings(finished=True)
    assert kinds(watch) == ["cut_off", "skipped"]
    assert "97% or more of the responses were cut off" in str(watch.warnings(finished=True)[0])


def spoiled(folder: Path, **metrics: float) -> Path:
    """A run whose last twenty steps have these metrics."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    write_lines(folder / "metrics.jsonl", [line | metrics if line["step"] > 20 else line for line in lines])
    return folder


def test_the_report_says_it_first(tmp_path):
    good, bad = write_run(tmp_path / "good"), spoiled(write_run(tmp_path / "<b>bad"), **{"response/truncated": 1.0})
    assert 'role="note"' not in write_report([good]).read_text()
    page = write_report([bad]).read_text()
    said = "steps 21 to 40: every response was cut off at rollout.max_response_tokens"
    assert page.index('class="subtitle"') < page.index(said) < page.index('class="tiles"')
    both = write_report([good, bad]).read_text()
    assert both.index("&lt;b&gt;bad: " + said) < both.index("<nav")
    assert "<b>bad" not in both


def test_the_report_of_an_evaluate_job_says_it_too(tmp_path):
    describe(tmp_path / "e", {"job": "evaluate", "run": {"name": "e"}, **CONFIG})
    write_lines(tmp_path / "e/metrics.jsonl", [{"step": 0, "start/eval/easy/truncated": 1.0}])
    assert "start on easy: every response was cut off" in write_report([tmp_path / "e"]).read_text()


def test_the_page_has_every_sign_with_its_count():
    section = PAGE[PAGE.index("## When a run learns nothing") :].partition("\n## ")[0]
    listed = dict(re.findall(r"^\| `(\w+)` \|.*\| (\d+) \|$", section, re.M))
    every = {sign.kind: sign.after for signs in SIGNS.values() for sign in signs}
    assert {kind: int(after) for kind, after in listed.items()} == every
    assert {sign.kind for sign in HELD_OUT} <= {sign.kind for sign in TRAINING}
    assert f"{HELD_OUT[0].after} evaluations" in section
