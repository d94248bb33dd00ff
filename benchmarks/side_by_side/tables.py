"""The tables of what workers reported."""

from __future__ import annotations

import statistics

from rich.table import Table
from turns import Reports

HOPS = ("rollout", "reward", "guidance", "update", "sync", "rest", "step")


def medians(reports: Reports) -> dict[str, dict[str, float]]:
    """Median seconds of each hop that anybody has, by worker."""
    hops = [hop for hop in HOPS if any(hop in report["hops"] for found in reports.values() for report in found)]
    return {
        name: {hop: statistics.median(report["hops"].get(hop, 0.0) for report in found) for hop in hops}
        for name, found in reports.items()
    }


def hop_table(reports: Reports) -> Table:
    """Median seconds of each hop; of the whole step also the middle half."""
    rows = medians(reports)
    table = Table("median seconds", *next(iter(rows.values())), "step, middle half")
    for name, hops in rows.items():
        low, _, high = statistics.quantiles((report["hops"]["step"] for report in reports[name]), n=4)
        table.add_row(name, *(f"{value:.3f}" for value in hops.values()), f"{low:.3f} to {high:.3f}")
    return table


def count_table(reports: Reports) -> Table:
    """Tokens a step (with their prompts where they are trained on), memory, and signs that all train the same."""
    table = Table("means a step", "sampled", "trained", "padding", "response length", "reward", "peak MB")
    for name, found in reports.items():
        means = {
            key: statistics.fmean(report[key] for report in found)
            for key in ("generated", "trained", "padding", "length", "reward")
        }
        counts = (f"{means[key]:,.0f}" for key in ("generated", "trained", "padding"))
        peak = f"{found[-1]['peak_mb']:,.0f}"
        table.add_row(name, *counts, f"{means['length']:.1f}", f"{means['reward']:.3f}", peak)
    return table
