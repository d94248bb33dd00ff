"""The page counts the lines that are there, to a tenth."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
COUNTED = re.findall(r"\]\(\.\./([\w/.-]+\.(?:yaml|py))\)[^|]*\| (\d+) \|", PAGE)


def lines(path: Path) -> int:
    """Lines that are neither blank nor a comment."""
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in path.read_text("utf-8").splitlines())


@pytest.mark.parametrize(("path", "count"), COUNTED)
def test_lines_are_counted(path: str, count: str) -> None:
    assert lines(ROOT / path) == pytest.approx(int(count), rel=0.1)


def test_every_method_is_on_the_page() -> None:
    methods = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs/methods").glob("*.yaml")}
    assert methods <= {path for path, _ in COUNTED}
    assert len(COUNTED) == 16
