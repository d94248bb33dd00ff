"""The page: docs/gpu.md with its last section replaced by what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gpu.world import ROOT

PAGE = ROOT / "docs" / "gpu.md"
HEADING = "## Measured\n"
TAIL_LINES = 30


@dataclass(slots=True)
class Result:
    """What became of a part. `failure` is None if it went through; `log` holds the last lines it printed."""

    name: str
    rows: list[tuple[str, str]]
    failure: str | None = None
    took: float = 0.0
    peak_mib: int | None = None
    log: list[str] = field(default_factory=list)


def page(facts: Mapping[str, str], date: str, results: Sequence[Result]) -> str:
    """The whole page in Markdown."""
    text = PAGE.read_text("utf-8")
    head = text[: text.index(HEADING)]
    return head + HEADING + "\n" + measured(facts, date, results)


def measured(facts: Mapping[str, str], date: str, results: Sequence[Result]) -> str:
    """The section below the heading: device and versions, the table, the ends of the logs of parts that failed."""
    lines = [f"{date}. " + ", ".join(f"{name} {value}" for name, value in facts.items()) + ".", ""]
    lines += ["| what | measured |", "|---|---|"]
    for result in results:
        lines += [f"| {_cell(what)} | {_cell(value)} |" for what, value in result.rows]
        if result.failure is not None:
            lines.append(f"| **part `{result.name}` failed** | {_cell(result.failure)} |")
    lines += [f"| peak memory of the device, {_by_part(results)} |", f"| seconds of the parts, {_seconds(results)} |"]
    for result in results:
        if result.failure is not None and result.log:
            lines += ["", f"The last lines of `{result.name}`:", "", "```text", *result.log, "```"]
    return "\n".join(lines) + "\n"


def _by_part(results: Sequence[Result]) -> str:
    peaks = [(r.name, "unknown" if r.peak_mib is None else f"{r.peak_mib / 1024:.1f} GiB") for r in results]
    return " / ".join(name for name, _ in peaks) + " | " + " / ".join(value for _, value in peaks)


def _seconds(results: Sequence[Result]) -> str:
    return " / ".join(r.name for r in results) + " | " + " / ".join(f"{r.took:.0f}" for r in results)


def _cell(text: str) -> str:
    """`text` on one line, so that it cannot break the table."""
    return " ".join(text.replace("|", "\\|").split())
