"""The tables: from what evaluations and runs left to Markdown, HTML and numbers."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ampo_registry import RunError
from ampo_registry.discovery import Plugins
from rich.console import Console

from ampo_core.config.load import LoadedConfig
from ampo_core.jobs.suite.plan import plan_suite
from ampo_core.jobs.suite.render import write_tables
from ampo_core.run.environment import Environment


def leave_evaluation(seed: int, run: str, right: int) -> None:
    """An evaluation of four questions with two samples, `right` of them correct in a row."""
    folder = Path(f"runs/s/seed-{seed}/evaluations/sampled/{run}")
    folder.mkdir(parents=True)
    numbers = {"length_mean": 10.0 + seed, "truncated": 0.25}
    (folder / "results.json").write_text(json.dumps({"models": {run: {"level2": numbers}}}))
    samples = [
        {"model": run, "set": "level2", "uid": f"q{i // 2}", "sample": i % 2, "correct": i < right} for i in range(8)
    ]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    (folder / "done").write_text('{"output": "."}')


@pytest.fixture
def tables(load: Callable[..., LoadedConfig], plugins: Plugins) -> Callable[..., str]:
    """Writes the tables of the suite in the working directory and returns what the screen showed."""

    def write(*overrides: str) -> str:
        loaded = load(*overrides)
        plan = plan_suite(loaded.job, Environment.of(loaded, plugins))  # type: ignore[arg-type]
        for task in plan.tasks:
            plan.note_finished(task)
        screen = io.StringIO()
        write_tables(plan, Console(file=screen, width=300))
        return screen.getvalue()

    return write


def results() -> Any:
    return json.loads(Path("runs/s/results.json").read_text())


def test_a_table_has_means_spreads_and_the_difference_to_its_baseline(tables: Callable[..., str]) -> None:
    for seed, (start, two) in enumerate([(0, 4), (2, 8)]):
        leave_evaluation(seed, "start", start)
        leave_evaluation(seed, "two", two)
    screen = tables("only=[first]")
    first = results()["first"]
    start, two = first["rows"]
    assert start["score"]["seeds"] == [0.0, 0.25]
    assert two["score"]["mean"] == 0.75
    assert two["score"]["spread"] == pytest.approx(0.25 * 2**0.5)
    assert two["difference"]["mean"] == 0.625
    assert start["difference"] is None
    assert two["measured"] == {"length_mean": 10.5, "truncated": 0.25}
    assert "75.0 ± 35.4" in screen
    assert "First | table" in screen
    assert "A <toy>." in screen


def test_markdown_and_html_escape_what_they_show(tables: Callable[..., str]) -> None:
    leave_evaluation(0, "start", 2)
    tables("only=[first]")
    markdown = Path("runs/s/tables/first.md").read_text()
    page = Path("runs/s/tables/first.html").read_text()
    assert markdown.startswith("## First | table\n\n| sampled | Avg. |")
    assert "| the start | 25.0 |" in markdown
    assert '<p class="note">A &lt;toy&gt;.</p>' in page
    assert '<img src="first.png"' in page
    assert Path("runs/s/tables/first.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_missing_is_said(tables: Callable[..., str]) -> None:
    leave_evaluation(1, "start", 2)
    screen = tables("only=[first]")
    assert "the start: 1 of 2 seeds are there." in screen
    assert "one more: 0 of 2 seeds are there." in screen
    rows = results()["first"]["rows"]
    assert [row["seeds"] for row in rows] == [[1], []]
    assert rows[1]["score"] is None


def test_tables_of_an_earlier_call_stay_in_the_results(tables: Callable[..., str]) -> None:
    leave_evaluation(0, "start", 2)
    tables("only=[first]")
    tables("only=[second]")
    assert set(results()) == {"first", "second"}


def test_an_evaluation_that_cannot_be_read_is_named(tables: Callable[..., str]) -> None:
    leave_evaluation(0, "start", 2)
    Path("runs/s/seed-0/evaluations/sampled/start/results.json").write_text("{")
    with pytest.raises(RunError, match="evaluations/sampled/start: what this evaluation left cannot be read"):
        tables("only=[first]")
