"""The tables for those who come from elsewhere: every key of ours is one, and takes the value beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ampo_registry.discovery import Plugins, discover

from ampo_core.config.jobs import JOBS
from ampo_core.config.load import load_config
from tests.docs.keys import is_key

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.name for path in ROOT.joinpath("docs").glob("from-*.md"))
BASE = """
job: train
model: {path: models/student}
data: {train: [data/train.parquet]}
evaluation: {sets: {NAME: {path: data/test.parquet}}}
"""
FUNCTIONS = """
def my_reward(completions, answer, **kwargs):
    return [0.0]


def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return 0.0
"""


def spans(page: str) -> list[str]:
    """What stands in backticks in the second column of the page's table, where ours are."""
    rows = [line for line in ROOT.joinpath("docs", page).read_text("utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
    return [span for cell in cells if len(cell) > 1 for span in re.findall(r"`([^`]+)`", cell[1])]


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Plugins:
    """What is installed, and a file with the functions that the pages name."""
    file = tmp_path_factory.mktemp("functions") / "functions_of_pages.py"
    file.write_text(FUNCTIONS, encoding="utf-8")
    return discover([file])


@pytest.mark.parametrize("page", PAGES)
def test_every_key_of_ours_exists(page, plugins, tmp_path):
    config = tmp_path / "base.yaml"
    config.write_text(BASE, encoding="utf-8")
    found = spans(page)
    assert len(found) > 15
    for span in found:
        if span.startswith("--"):
            assert f'"{span}"' in ROOT.joinpath("ampo_core/cli/main.py").read_text("utf-8"), span
        elif span.startswith("job: "):
            assert span.removeprefix("job: ") in JOBS
        elif ": " in span:
            key, _, value = span.partition(": ")
            load_config(config, [f"{key}={value}"], plugins)
        else:
            assert is_key(span.split(".")), f"{page}: {span}"
