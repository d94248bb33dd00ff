"""The pytest plugin: each fixture does what it says, in a session of its own, and costs nothing where none is asked."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE = "ampo_core.testing.fixtures"
TESTS = """
def test_quick(
    ampo_question, ampo_group, ampo_request, ampo_step, ampo_report, ampo_scorer, ampo_judge, ampo_pool, ampo_engine
):
    question = ampo_question(3, answer="7")
    assert (question.uid, question.answer) == ("question-3", "7")
    assert len(ampo_group((0.0, 1.0), question=question).wrong) == 1
    assert len(ampo_request(candidates=4, k=2).candidates) == 4
    assert ampo_step(3, scorer=ampo_scorer).step == 3
    assert ampo_report(texts=[["a"]]).groups[0].texts == ("a",)
    assert ampo_judge.logprobs([]) == []
    assert list(ampo_pool.answers(question)) == []
    assert ampo_engine.asked == []


def test_real(ampo_run_steps, ampo_world, tmp_path):
    done = ampo_run_steps(steps=1)
    assert done.folder.is_relative_to(tmp_path)
    assert str(ampo_world.model) in (done.folder / "config.yaml").read_text()
"""
NONE = """
import sys


def test_nothing():
    heavy = ("torch", "pydantic", "yaml", "ampo_registry", "ampo_core.config")
    assert "ampo_core.testing.fixtures" in sys.modules
    assert [name for name in heavy if name in sys.modules] == []
"""


def is_found() -> bool:
    """Whether this environment knows the entry point: it was installed since there is one."""
    return any(entry.value == MODULE for entry in metadata.entry_points(group="pytest11"))


def run(folder: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(code)
    plugin = () if is_found() else ("-p", MODULE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, *arguments, "test_it.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.mark.process
def test_nothing_is_imported_for_a_session_that_asks_for_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, NONE)
    assert done.returncode == 0, done.stdout


@pytest.mark.process
@pytest.mark.parametrize("which", ["quick", pytest.param("real", marks=pytest.mark.slow)])
def test_the_fixtures_do_what_they_say(tmp_path: Path, which: str) -> None:
    done = run(tmp_path, TESTS, "-k", which)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_pytest_finds_it_by_an_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"ampo": MODULE}
