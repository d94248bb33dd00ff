"""The same question side by side: which lines are of one, which steps are matched, and what is shown of them."""

import json

import pytest
from ampo_registry import ConfigError

from ampo_core.report.build import write_report
from ampo_core.report.side_by_side import MOST_COLUMNS, predictions_beside, rollouts_beside
from ampo_core.report.sources import collect

from .conftest import EVIL, write_evaluation, write_lines, write_run
from .test_build import words


def line(step, uid, text="x", **more):
    found = {"step": step, "uid": uid, "prompt": f"what is {uid}?", "answer": "4", "text": text, "reward": 1.0}
    return {**found, "source": "policy", "teacher": None, "score": None, **more}


def beside(folders, *lines):
    """The sides of runs whose samples.jsonl hold `lines`, a list for each."""
    for folder, found in zip(folders, lines, strict=True):
        write_lines(folder / "samples.jsonl", found)
    return rollouts_beside(collect(folders).entries)


@pytest.fixture
def two(tmp_path):
    return [write_run(tmp_path / name, steps=3, guided=name == "ampo", evaluated=False) for name in ("grpo", "ampo")]


def test_the_same_question_at_the_same_step_or_else_at_the_nearest(two):
    sides = beside(
        two,
        [line(1, "a", "first"), line(9, "a", "again"), line(5, "b", "there"), line(7, "alone")],
        [line(4, "b", "here"), line(9, "a", "other"), line(30, "b", "late")],
    )
    assert list(sides.columns) == [("grpo", 0), ("ampo", 1)]
    by_label = {place["label"]: [[row["place"] for row in cell] for cell in place["cells"]] for place in sides.places}
    assert by_label["✓✓ step 9 · what is a?"] == [["step 9"], ["step 9"]]
    assert by_label["✓✓ step 4 · what is b?"] == [["step 5"], ["step 4"]]
    assert len(by_label) == 2  # the steps at which only one has it, and the question that one has alone, are left out


def test_what_is_right_is_a_matter_of_each_runs_threshold(two):
    for folder, threshold in zip(two, ("0.9", "0.5"), strict=True):
        config = (folder / "config.yaml").read_text()
        (folder / "config.yaml").write_text(config.replace("guidance: null", "guidance:\n  threshold: 0.6"))
        config = (folder / "config.yaml").read_text()
        (folder / "config.yaml").write_text(config.replace("threshold: 0.6", f"threshold: {threshold}"))
    sides = beside(two, [line(1, "a", reward=0.7)], [line(1, "a", reward=r) for r in (0.7, 0.1, 0.7, 0.7)])
    (place,) = sides.places
    assert place["label"] == "✗◐ step 1 · what is a?"
    assert place["counts"] == [[0, 1], [3, 4]]
    assert [[row["correct"] for row in cell] for cell in place["cells"]] == [[False], [True, False, True]]
    assert (place["question"], place["truth"]) == ("what is a?", "4")


def test_what_teachers_wrote_counts_for_nothing_and_stands_below(two):
    taught = [line(1, "a", f"taught {i}", source="teacher", teacher="chain") for i in range(3)]
    own = [line(1, "a", f"own {i}", reward=0.0) for i in range(4)]
    only = line(2, "b", source="teacher", teacher="chain")
    sides = beside(two, [*own, line(2, "b")], [*taught, *own, only])
    (place,) = sides.places  # of b the second run has no answer of its own
    assert (place["label"], place["counts"]) == ("✗✗ step 1 · what is a?", [[0, 4], [0, 4]])
    texts = [[row["text"] for row in cell] for cell in place["cells"]]
    assert texts == [["own 0", "own 1", "own 2"], ["own 0", "own 1", "own 2", "taught 0", "taught 1"]]
    assert [row["teacher"] for row in place["cells"][1]] == [False, False, False, True, True]
    assert place["put_in"] == [0, 3]


def test_lines_of_other_releases_and_prompts_differ_in_fields(two):
    """No uid, another one for another system prompt, fields that one release has and the other has not."""
    old = {key: value for key, value in line(1, "a").items() if key not in ("uid", "score", "teacher")}
    new = line(1, "other-uid", prompt="what is a?", read="<s>what is a?", segments=[["on_policy", 3]], given=0)
    sides = beside(two, [old], [new])
    assert [len(cell) for cell in sides.places[0]["cells"]] == [1, 1]
    assert sides.places[0]["cells"][1][0]["trained"] == "on_policy 3"
    assert [cell[0]["read"] for cell in sides.places[0]["cells"]] == [None, "<s>what is a?"]
    (place,) = beside(two, [old], [new, new, {**new, "read": "<s>hint"}]).places
    assert [row["read"] for row in place["cells"][1]] == ["<s>what is a?", None, "<s>hint"]
    assert beside(two, [line(1, "a")], [line(1, "b")]) is None
    assert beside(two, [], [line(1, "b")]) is None


def test_many_questions_are_spread_and_those_that_all_have_come_first(tmp_path):
    runs = [write_run(tmp_path / f"r{i}", steps=1, evaluated=False) for i in range(MOST_COLUMNS + 1)]
    everywhere = [line(step, f"q{step}") for step in range(1, 100)]
    sides = beside(runs, *[[*everywhere, *([line(5, "few")] if i < 2 else [])] for i in range(len(runs))])
    assert len(sides.columns) == MOST_COLUMNS
    assert len(sides.places) == 13
    steps = [int(place["label"].split()[2]) for place in sides.places]
    assert (steps, len(set(steps))) == (sorted(steps), 13)
    assert steps[0] < 10
    assert steps[-1] > 90


def test_the_page_has_them_and_texts_stay_texts(two):
    for folder in two:
        write_lines(folder / "samples.jsonl", [line(1, "a", EVIL)])
    text, data, html = words(write_report(two))
    assert "Rollouts side by side" in text
    (place,) = data["sides"]["rollouts-beside"]["places"]
    assert place["cells"][0][0]["text"] == EVIL
    assert html.count("</script>") == 3
    with (two[0] / "samples.jsonl").open("a") as file:
        file.write("[]\n")
    with pytest.raises(ConfigError, match=r"samples\.jsonl, line 2: not a sample"):
        write_report(two)


def test_predictions_of_the_models_of_one_job_and_of_several(tmp_path):
    folder = write_evaluation(tmp_path / "e", {"start": 0.2, "ampo": 0.5})
    text, data, _ = words(write_report([folder]))
    assert "Predictions side by side" in text
    sides = data["sides"]["predictions-beside"]
    assert sides["columns"] == [["start", None], ["ampo", None]]
    labels = [place["label"] for place in sides["places"]]
    assert len(labels) == 40  # of 400, and not every tenth: those are right, for their numbers are even
    assert {label.split(" · ")[0] for label in labels} == {"✓✓ easy", "✗✗ easy", "✓✓ hard", "✗✗ hard"}
    other = write_evaluation(tmp_path / "f", {"start": 0.2})
    sides = predictions_beside(collect([folder, other]).entries)
    assert [name for name, _ in sides.columns] == ["e: start", "e: ampo", "f"]
    records = [json.loads(item) for item in (other / "predictions.jsonl").read_text().splitlines()]
    write_lines(other / "predictions.jsonl", [{**record, "correct": False} for record in records])
    labels = [place["label"] for place in predictions_beside(collect([folder, other]).entries).places]
    assert any(label.startswith("✓✓✗ easy") for label in labels)


def test_a_suite_shows_its_first_seed_and_a_pipeline_both_kinds(suite, pipeline):
    text, data, _ = words(write_report([suite]))
    assert [name for name, _ in data["sides"]["rollouts-beside"]["columns"]] == ["grpo", "ampo"]
    assert {name for name, _ in data["sides"]["predictions-beside"]["columns"]} == {"sampled/ampo", "sampled/grpo"}
    text, data, _ = words(write_report([pipeline]))
    assert set(data["sides"]) == {"rollouts-beside", "predictions-beside"}
    assert text.index("Rollouts side by side") < text.index("Predictions side by side")
