"""The numbers that a prepare or pool job left in summary.json, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ampo_core.report.html import paragraph, table
from ampo_core.report.settings import as_text
from ampo_core.report.sources import RunData
from ampo_core.run.files import read_object


def summary_html(run: RunData) -> str:
    """summary.json of a prepare or pool job as tables; a sentence where there is none."""
    path = run.path / "summary.json"
    if not path.is_file():
        return paragraph("No summary has been written yet.")
    return _tables(read_object(path), "")


def _tables(value: Mapping[str, Any], title: str) -> str:
    """A tree of numbers: plain values in one table, blocks of the same keys in another, others by themselves."""
    plain = {key: item for key, item in value.items() if not isinstance(item, Mapping)}
    blocks = {key: item for key, item in value.items() if isinstance(item, Mapping)}
    html = table([title or "what", "number"], [[key, as_text(item)] for key, item in plain.items()]) if plain else ""
    uniform = blocks and all(not isinstance(v, Mapping) for block in blocks.values() for v in block.values())
    if uniform and len(blocks) > 1:
        names = list(dict.fromkeys(name for block in blocks.values() for name in block))
        rows = [
            [key, *(as_text(block[name]) if name in block else "–" for name in names)] for key, block in blocks.items()
        ]
        return html + table([title or "what", *names], rows)
    return html + "".join(_tables(block, key) for key, block in blocks.items())
