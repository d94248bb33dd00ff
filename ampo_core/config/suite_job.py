"""The config of the `suite` job."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from typing import Any, Literal

from pydantic import Field, PositiveInt

from ampo_core.config.inner import Inner, bad_references
from ampo_core.config.job import NamedModel
from ampo_core.config.nodes import Finding, KeyPath, nearest, shortened
from ampo_core.config.pipeline_job import ComposedJob, Stage, inner_stages, stage_findings
from ampo_core.config.references import NAME, THIS, is_filled_in, names_in
from ampo_core.config.tree import Block
from ampo_core.config.values import PathText, Seed

# a log is named after an evaluation and a run
_MAX_NAME = 100


class SuiteRun(Block):
    """A row of a suite's tables: a config that trains a model, or a model that is there already."""

    title: str | None = Field(default=None, description="how tables call it; null = its name")
    config: PathText | None = Field(
        default=None, description="a train, sft or pipeline config, relative to the suite's file"
    )
    model: PathText | None = Field(default=None, description="instead of config: a model that is only evaluated")
    overrides: dict[str, Any] = Field(
        default={},
        description="KEY: VALUE, keys with dots; ${runs.NAME.out} and ${stages.NAME.out} name the model of another run "
        "and the output of a stage, at the same seed",
    )


class SuiteTable(Block):
    """One table: some of the runs, in this order."""

    title: str | None = Field(default=None, description="headline; null = the table's name")
    rows: list[str] = Field(min_length=1, description="names of runs")
    baseline: str | None = Field(default=None, description="row that the others are compared with; null = the first")
    note: str | None = Field(default=None, description="caveats printed under the table")


class SuiteJob(ComposedJob):
    """Runs configs × seeds, evaluates what they trained, and compares them in tables."""

    job: Literal["suite"] = "suite"
    part = "seed-0/NAME"
    seeds: list[Seed] = Field(default=[0], min_length=1, description="each run runs once with each")
    parallel: PositiveInt = Field(default=1, description="runs side by side, each a process of its own")
    only: list[str] | None = Field(
        default=None, min_length=1, description="make only these tables and the runs that they need; null = all"
    )
    stages: list[Stage] = Field(default=[], description="what all runs share: run once a seed, in this order")
    runs: dict[str, PathText | SuiteRun] = Field(
        min_length=1, description="name -> run, or just the path of its config"
    )
    evaluations: dict[str, PathText] = Field(
        default={},
        description="name -> evaluate config, relative to the suite's file, with one model: ${runs.this.out}; "
        "each run is evaluated with each",
    )
    tables: dict[str, SuiteTable] = Field(default={}, description="name -> table; {} = one of all runs")

    def findings(self) -> Iterator[Finding]:
        yield from stage_findings(self.stages, "suite")
        if len(set(self.seeds)) < len(self.seeds):
            yield Finding(("seeds",), f"a seed stands twice in {self.seeds}")
        yield from self._runs()
        yield from self._tables()
        for name in self.evaluations:
            yield from _well_named(name, ("evaluations", name))

    def used_models(self) -> Iterator[NamedModel]:
        """Those that are only evaluated, where they are named and not made by one of its stages."""
        shown = self._rows()
        for name, run in self.members().items():
            if run.model is not None and name in shown and not is_filled_in(run.model):
                yield NamedModel(("runs", name, "model"), run.model, may_be_run=True)

    def inner_configs(self) -> list[Inner]:
        found = inner_stages(self.stages)
        stages = [stage.name for stage in self.stages]
        earlier = list(stages)
        for name, run in self.members().items():
            if run.config is not None:
                found.append(Inner(("runs", name), run.config, run.overrides, tuple(earlier)))
            earlier.append(name)
        known = (*stages, THIS)
        return found + [Inner(("evaluations", name), config, {}, known) for name, config in self.evaluations.items()]

    def left_out(self, written: Mapping[KeyPath, object]) -> set[KeyPath]:
        """The runs that `only` leaves out: in no table asked for, nor referred to by one that is."""
        uses = {name: names_in(written.get(("runs", name), run.model)) for name, run in self.members().items()}
        return {("runs", name) for name in self.runs.keys() - self.needed_runs(uses)}

    def needed_runs(self, uses: Mapping[str, Set[str]]) -> list[str]:
        """The runs in the tables that are to be made and those that they refer to, in order.

        `uses` holds the names that each run refers to, which are those of earlier ones alone.
        """
        needed = self._rows()
        for name in reversed(self.runs):
            if name in needed:
                needed |= uses[name]
        return [name for name in self.runs if name in needed]

    def members(self) -> dict[str, SuiteRun]:
        """The runs by name, in the long form."""
        return {name: SuiteRun(config=run) if isinstance(run, str) else run for name, run in self.runs.items()}

    def shown_tables(self) -> dict[str, SuiteTable]:
        """The tables that are to be made, in order."""
        return {name: table for name, table in self.all_tables().items() if self.only is None or name in self.only}

    def all_tables(self) -> dict[str, SuiteTable]:
        """The tables by name; without any, one of all runs."""
        return self.tables or {"results": SuiteTable(rows=list(self.runs))}

    def _rows(self) -> set[str]:
        """The runs in the tables that are to be made."""
        return {row for table in self.shown_tables().values() for row in table.rows}

    def _runs(self) -> Iterator[Finding]:
        taken = {stage.name for stage in self.stages} | {THIS, "evaluations"}
        known = [stage.name for stage in self.stages]
        for name, run in self.members().items():
            yield from _well_named(name, ("runs", name))
            if name in taken:
                yield Finding(("runs", name), f"{name!r} is taken: by a stage, or by the suite itself")
            if (run.config is None) == (run.model is None):
                yield Finding(("runs", name), "give either config (what trains a model) or model (one that is there)")
            for key in sorted({"run.name", "run.dir", "run.seed", "run"} & run.overrides.keys()):
                yield Finding(("runs", name, "overrides"), f"{key} is set by the suite: use seeds, and the run's name")
            if run.model is not None:
                if run.overrides:
                    yield Finding(
                        ("runs", name, "overrides"), "a model that is only evaluated has no config to override"
                    )
                for text in bad_references(known, run.model):
                    yield Finding(("runs", name, "model"), text)
            known.append(name)

    def _tables(self) -> Iterator[Finding]:
        if not self.evaluations:
            yield Finding(("evaluations",), "without an evaluation the tables show no scores", "warning")
        for name, table in self.tables.items():
            yield from _well_named(name, ("tables", name))
            for i, row in enumerate(table.rows):
                if row not in self.runs:
                    yield Finding(("tables", name, "rows", i), f"there is no run {row!r}{nearest(row, self.runs)}")
                elif row in table.rows[:i]:
                    yield Finding(("tables", name, "rows", i), f"{row!r} stands twice")
            if table.baseline is not None and table.baseline not in table.rows:
                text = f"{table.baseline!r} is no row of this table{nearest(table.baseline, table.rows)}"
                yield Finding(("tables", name, "baseline"), text)
        only = self.only or []
        for i, name in enumerate(only):
            if name in only[:i]:
                yield Finding(("only", i), f"{name!r} stands twice")
            if name not in self.all_tables():
                yield Finding(("only", i), f"there is no table {name!r}{nearest(name, self.all_tables())}")


def _well_named(name: str, path: KeyPath) -> Iterator[Finding]:
    if not re.fullmatch(NAME, name) or len(name) > _MAX_NAME:
        text = f"a name is letters, digits, _ and -, at most {_MAX_NAME}, found {shortened(name)}"
        yield Finding(path, text)
