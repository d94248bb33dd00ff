"""Rules between the keys of a suite."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ampo_core.config.inner import bad_references
from ampo_core.config.nodes import Finding, nearest
from ampo_core.config.references import NAME, THIS
from ampo_core.config.suite_job import SuiteJob


def check_suite(job: SuiteJob) -> Iterator[Finding]:
    """All that is wrong with a suite whose fields are valid one by one."""
    if len(set(job.seeds)) < len(job.seeds):
        yield Finding(("seeds",), f"a seed stands twice in {job.seeds}")
    yield from _runs(job)
    yield from _tables(job)
    for name in job.evaluations:
        if not re.fullmatch(NAME, name):
            yield Finding(("evaluations", name), f"a name is letters, digits, _ and -, found {name!r}")


def _runs(job: SuiteJob) -> Iterator[Finding]:
    taken = {stage.name for stage in job.stages} | {THIS, "evaluations"}
    known = [stage.name for stage in job.stages]
    for name, run in job.members().items():
        if not re.fullmatch(NAME, name):
            yield Finding(("runs", name), f"a name is letters, digits, _ and -, found {name!r}")
        if name in taken:
            yield Finding(("runs", name), f"{name!r} is taken: by a stage, or by the suite itself")
        if (run.config is None) == (run.model is None):
            yield Finding(("runs", name), "give either config (what trains a model) or model (one that is there)")
        for key in sorted({"run.name", "run.dir", "run.seed", "run"} & run.overrides.keys()):
            yield Finding(("runs", name, "overrides"), f"{key} is set by the suite: use seeds, and the run's name")
        if run.model is not None:
            if run.overrides:
                yield Finding(("runs", name, "overrides"), "a model that is only evaluated has no config to override")
            for text in bad_references(known, run.model):
                yield Finding(("runs", name, "model"), text)
        known.append(name)


def _tables(job: SuiteJob) -> Iterator[Finding]:
    if not job.evaluations:
        yield Finding(("evaluations",), "without an evaluation the tables show no scores", "warning")
    for name, table in job.tables.items():
        if not re.fullmatch(NAME, name):
            yield Finding(("tables", name), f"a name is letters, digits, _ and -, found {name!r}")
        for i, row in enumerate(table.rows):
            if row not in job.runs:
                yield Finding(("tables", name, "rows", i), f"there is no run {row!r}{nearest(row, job.runs)}")
        if table.baseline is not None and table.baseline not in table.rows:
            text = f"{table.baseline!r} is no row of this table{nearest(table.baseline, table.rows)}"
            yield Finding(("tables", name, "baseline"), text)
    for i, name in enumerate(job.only or ()):
        if name not in job.all_tables():
            yield Finding(("only", i), f"there is no table {name!r}{nearest(name, job.all_tables())}")
