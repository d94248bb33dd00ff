"""Changes that were allowed show wherever their run does: its page, comparisons, evaluations, tables of suites."""

import json
import re

import yaml

from ampo_core.jobs.suite.render import as_table
from ampo_core.jobs.suite.statistics import SeedEstimate
from ampo_core.jobs.suite.tables import ResultRow, ResultTable
from ampo_core.report.build import write_report
from ampo_core.report.marks import footnotes, patches
from ampo_core.report.sources import collect

from .conftest import write_evaluation, write_lines, write_run
from .test_build import words

LATER = {"step": 20, "time": "2026-11-29T09:12:33+00:00", "changes": [["training.learning_rate", 1e-6, 2e-6]]}
SAID = "after step 20 (2026-11-29 09:12 UTC): training.learning_rate 1e-06 → 2e-06"


def patched(folder, *marks):
    """A run that went on with changes."""
    (folder / "history").mkdir()
    write_lines(folder / "history/changes.jsonl", marks or [LATER])
    return folder


def text_of(*folders):
    text, data, _ = words(write_report(folders))
    return " ".join(text.split()), data


def test_what_is_said_of_each_change(run):
    assert patches(run) == []
    many = [[f"a.{i}", None, "x" * 500] for i in range(20)]
    patched(run, LATER, {"step": 30, "time": None, "changes": many})
    first, second = patches(run)
    assert first == SAID
    assert second.startswith("after step 30: a.0 – → " + "x" * 160 + "…, a.1 ")
    assert second.endswith(", and 8 more (history/changes.jsonl)")
    assert patches(run, 30) == [SAID]
    assert patches(run, 20) == []


def test_the_page_of_a_run_says_it_first_and_draws_where(run):
    clean, data = text_of(run)
    assert "allowed" not in clean
    assert all("shapes" not in figure["layout"] for figure in data["figures"])
    text, data = text_of(patched(run))
    assert "train run, finished, changed on the way (--allow-changes)" in text
    said = f"Went on with changes that were allowed (--allow-changes): {SAID}"
    assert text.index(said) < text.index("steps 40")
    shapes = {figure["id"]: figure["layout"].get("shapes") for figure in data["figures"]}
    assert {shape["x0"] for shape in shapes["reward/mean"]} == {20.5}
    assert all(shapes.values())


def test_a_run_that_was_made_from_a_changed_one_says_so(run, tmp_path):
    patched(run)
    for step, known in ((20, []), (30, [f"made from ampo, which went on {SAID}"])):
        later = write_run(tmp_path / f"later-{step}")
        config = yaml.safe_load((later / "config.yaml").read_text())
        start = run / f"checkpoints/step-{step:06d}/policy"
        start.mkdir(parents=True)
        (later / "config.yaml").write_text(yaml.safe_dump({**config, "model": {"path": str(start)}}))
        assert patches(later) == known


def test_a_comparison_marks_the_run_in_every_table(run, tmp_path):
    clean = write_run(tmp_path / "grpo", guided=False)
    text, data = text_of(clean, patched(run))
    assert f"(--allow-changes): ampo: {SAID}" in text
    assert re.search(r"ampo † 40 70\.0 %", text)
    assert re.search(r"ampo † 40 320 1,280", text)
    assert "grpo †" not in text
    assert f"† ampo went on with allowed changes: {SAID}" in text
    assert "key grpo ampo † guidance" in text
    assert text.count("ampo †") == 4  # the switch above the figures, where they ended, what they spent, differences
    assert data["sides"]["rollouts-beside"]["columns"] == [["grpo", 0], ["ampo †", 1]]


def test_of_several_seeds_the_changed_one_is_named(suite):
    patched(suite / "seed-1/ampo")
    assert [entry.patches for entry in collect([suite]).entries[:2]] == [[], [f"seed-1, {SAID}"]]
    text, _ = text_of(suite)
    assert f"(--allow-changes): ampo, seed-1: {SAID}" in text
    assert f"† ampo went on with allowed changes: seed-1, {SAID}" in text
    assert "ampo, seed-1 † 40" in text
    assert "ampo, seed-0 40" in text


def test_an_evaluation_says_it_of_the_models(tmp_path):
    folder = write_evaluation(tmp_path / "e", {"start": 0.2, "ampo": 0.5})
    found = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps({**found, "changed": {"ampo": [SAID]}}))
    text, data = text_of(folder)
    assert data["sides"]["predictions-beside"]["columns"] == [["start", None], ["ampo †", None]]
    assert "ampo † easy 16 8 50.0 [45.0, 55.0]" in text
    assert f"† ampo went on with allowed changes: {SAID}" in text


def test_the_table_of_a_suite_has_a_mark_and_own_figures_first():
    score = SeedEstimate((0.4, 0.6), 0.4, 0.6, 0.5, 0.1)
    spent = {"tokens_generated": 30_000.0, "tokens_trained": None, "teacher_answers": 7.0}
    own = {"tokens_generated": 20_000.0, "tokens_trained": None, "teacher_answers": 7.0}
    rows = [
        ResultRow(name, name.upper(), (0, 1), {}, score, None, {}, {}, spent, own, changed)
        for name, changed in (("grpo", ()), ("ampo", ("seed 1, " + SAID,)))
    ]
    table = as_table(ResultTable("t", "T", "grpo", 2, "held-out", tuple(rows), None))
    assert [row[0] for row in table.rows] == ["GRPO", "AMPO †"]
    assert [row[-3:] for row in table.rows] == [["20k + 10k", "–", "7"]] * 2
    assert table.notes == footnotes({"AMPO": ["seed 1, " + SAID]})
    assert f"† AMPO went on with allowed changes: seed 1, {SAID}" in table.markdown()
