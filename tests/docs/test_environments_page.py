"""docs/environments.md: its task keeps the contract, its options and what it says of the package are the real ones."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from ampo_plugins.gym import answers, datasets
from ampo_registry.discovery import discover
from ampo_registry.testing import check_task
from reasoning_gym.factory import DATASETS

PAGE = (Path(__file__).parents[2] / "docs" / "environments.md").read_text(encoding="utf-8")


def test_the_task_of_the_page_keeps_its_contract(tmp_path, monkeypatch):
    (code,) = re.findall(r"<!-- save: sums.py -->\n```python\n(.*?)```", PAGE, re.S)
    file = tmp_path / "sums_of_the_page.py"
    file.write_text(code, encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    check_task(discover([file]).catalog.resolve("task", "sums"), teacher_answers=False)


@pytest.mark.parametrize("kind", ["task", "reward"])
def test_every_option_is_there(kind):
    entry = discover().catalog.entry(kind, "reasoning_gym")
    common = {"workers", "timeout_s", "max_error_rate", "repetition_penalty", "overlong_penalty"}
    assert [name for name in entry.options if name not in common and f"| `{name}` |" not in PAGE] == []


def test_what_is_left_out_run_or_odd_is_named():
    assert all(f"`{name}`" in PAGE for name in (*datasets.REFUSED, *datasets.UNSTEADY))
    assert "The scorers of eleven data sets" in PAGE
    assert len({*answers.RUN, *answers.RUN_OF_METADATA}) == 11
    assert f"All {len(set(DATASETS) - {'composite', *datasets.REFUSED})} data sets of version" in PAGE
