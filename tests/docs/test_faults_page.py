"""docs/faults.md names a test for every fault, and the test is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT.joinpath("docs/faults.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| fault ")]


@pytest.mark.parametrize("row", ROWS)
def test_a_fault_names_its_tests(row):
    cells = re.split(r"(?<!\\)\s\|\s?", row.strip("| "))
    assert len(cells) == 4, "fault, what is said, what to do, test"
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", cells[3])
    assert named, "no test is named"
    for file, test in named:
        assert f"def {test}(" in ROOT.joinpath(file).read_text(encoding="utf-8"), f"{file} has no {test}"
