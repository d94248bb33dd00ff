"""The config of the `suite` job, and the stage that it shares with pipelines."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt

from ampo_core.config.tree import Block, RunConfig


class Stage(Block):
    """One stage of a pipeline."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="name of the stage, for ${stages.NAME.out}")
    config: str = Field(description="path, relative to the pipeline's file")
    overrides: dict[str, Any] = Field(
        default={},
        description="KEY: VALUE, keys with dots; ${stages.NAME.out} names an earlier stage's output",
    )


class SuiteRun(Block):
    """A row of a suite's tables: a config that trains a model, or a model that is there already."""

    title: str | None = Field(default=None, description="how tables call it; null = its name")
    config: str | None = Field(
        default=None, description="a train, sft or pipeline config, relative to the suite's file"
    )
    model: str | None = Field(default=None, description="instead of config: a model that is only evaluated")
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


class SuiteJob(Block):
    """Runs configs × seeds, evaluates what they trained, and compares them in tables."""

    job: Literal["suite"] = "suite"
    run: RunConfig = RunConfig()
    seeds: list[int] = Field(default=[0], min_length=1, description="each run runs once with each")
    parallel: PositiveInt = Field(default=1, description="runs side by side, each a process of its own")
    only: list[str] | None = Field(
        default=None, min_length=1, description="make only these tables and the runs that they need; null = all"
    )
    stages: list[Stage] = Field(default=[], description="what all runs share: run once a seed, in this order")
    runs: dict[str, str | SuiteRun] = Field(min_length=1, description="name -> run, or just the path of its config")
    evaluations: dict[str, str] = Field(
        default={},
        description="name -> evaluate config, relative to the suite's file, with one model: ${runs.this.out}; "
        "each run is evaluated with each",
    )
    tables: dict[str, SuiteTable] = Field(default={}, description="name -> table; {} = one of all runs")

    def members(self) -> dict[str, SuiteRun]:
        """The runs by name, in the long form."""
        return {name: SuiteRun(config=run) if isinstance(run, str) else run for name, run in self.runs.items()}

    def shown_tables(self) -> dict[str, SuiteTable]:
        """The tables that are to be made, in order."""
        return {name: table for name, table in self.all_tables().items() if self.only is None or name in self.only}

    def all_tables(self) -> dict[str, SuiteTable]:
        """The tables by name; without any, one of all runs."""
        return self.tables or {"results": SuiteTable(rows=list(self.runs))}
