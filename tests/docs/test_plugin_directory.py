"""The directory names every built-in component and every example distribution, and counts the lines that are there."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from ampo_registry.discovery import discover

from ampo_core.testing import fixtures, run_steps

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plugin-directory.md").read_text("utf-8")
PLUGINS = (ROOT / "docs" / "plugins.md").read_text("utf-8")
ROWS = re.findall(r"^\| \[(ampo-[\w-]+)\]\(\S+\) \| (\w+) `(\w+)` \| (\d+) \|", PAGE, re.M)


def test_every_built_in_component_is_listed() -> None:
    catalog = discover().catalog
    for kind in catalog.kinds():
        own = [entry.name for entry in catalog.entries(kind) if entry.distribution == "ampo-rl"]
        (cell,) = re.findall(rf"^\| \[{kind}\]\(\S+\) \| ([^|]+) \|", PAGE, re.M)
        assert re.findall(r"`(\w+)`", cell) == own


def test_every_example_is_listed() -> None:
    examples = ROOT / "plugins" / "examples"
    assert {name for name, *_ in ROWS} == {path.parent.name for path in examples.glob("*/pyproject.toml")}


@pytest.mark.parametrize(("distribution", "kind", "name", "count"), ROWS)
def test_what_an_example_brings_and_its_lines(distribution: str, kind: str, name: str, count: str) -> None:
    file = ROOT / "plugins" / "examples" / distribution / distribution.replace("-", "_") / "__init__.py"
    code = file.read_text("utf-8")
    lines = [line.strip() for line in code.splitlines()]
    assert sum(bool(line) and not line.startswith("#") for line in lines) == pytest.approx(int(count), rel=0.1)
    entry = discover([file]).catalog.entry(kind, name)
    assert entry.spec.__module__ == file.parent.name


def test_the_page_of_plugins_has_the_arguments_of_run_steps_and_all_fixtures() -> None:
    signature = inspect.signature(run_steps)
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    shown = signature.replace(parameters=plain, return_annotation=inspect.Signature.empty)
    assert f"```text\nrun_steps{shown}\n```" in PLUGINS
    own = [name for name in vars(fixtures) if name.startswith("ampo_")]
    assert len(own) > 9
    assert [name for name in (*signature.parameters, *own) if f"| `{name}` |" not in PLUGINS] == []
