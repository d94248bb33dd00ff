"""The functions that docs/rewards.md shows do what it says; every reward and every option stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from ampo_registry import BuildContext, GradeRequest
from ampo_registry.discovery import discover

PAGE = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"<!-- save: (\w+\.py) -->\n```python\n(.*?)```", PAGE, re.S))


@pytest.fixture
def catalog(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    files = [tmp_path / name for name in FILES]
    for file in files:
        file.write_text(FILES[file.name], encoding="utf-8")
    plugins = discover(files)
    assert not plugins.broken
    yield plugins.catalog
    for file in files:
        del sys.modules[file.stem]


def grade(catalog, text, row=None, **options):
    spec = catalog.resolve("reward", {"type": "function", **options})
    return spec.build(BuildContext()).grade([GradeRequest(text, "72", extra=row or {})])[0]


def test_the_function_of_verl(catalog):
    options = {"function": "compute_score", "style": "verl", "arguments": {"format_score": 0.1}}
    right, wrong = (grade(catalog, text, **options) for text in ("#### 72", "#### 71"))
    assert (right.reward, right.correct, wrong.reward, wrong.correct) == (1.0, True, 0.1, False)
    assert right.numbers == {"compute_score/marked": 1.0}


def test_the_functions_of_trl(catalog):
    options = {"function": "accuracy", "style": "trl"}
    assert grade(catalog, "it is 72", {"answer": "72"}, **options).correct
    assert grade(catalog, "it is 72", {"answer": ""}, **options).status == "error"
    assert grade(catalog, "x" * 501, function="short", style="trl", arguments={"limit": 500}).reward == 0.0


def test_every_reward_and_the_options_of_those_that_have_a_table_are_there():
    entries = {entry.name: entry for entry in discover().catalog.entries("reward") if entry.distribution == "ampo-rl"}
    for name in entries:
        assert f"### {name}\n" in PAGE or f"| `{name}` |" in PAGE or f"type: {name}," in PAGE
    common = {"workers", "timeout_s", "max_error_rate", "repetition_penalty", "overlong_penalty", "type"}
    for name in ("function", "exact"):
        options = set(entries[name].options) - common - ({"format_weight"} if name == "exact" else set())
        assert [option for option in sorted(options) if f"`{option}" not in PAGE] == []
