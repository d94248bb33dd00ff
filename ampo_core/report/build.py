"""The report of a run or of several as a file: `write_report`, and `refresh_report`, which never stops a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os.path import commonpath
from pathlib import Path
from typing import Any

from ampo_registry.errors import AmpoError, ConfigError

from ampo_core.report.comparing import (
    differences_section,
    final_section,
    gather_scores,
    guidance_figures,
    health_figures,
    lines_of,
)
from ampo_core.report.evaluation import evaluation_sections
from ampo_core.report.facts import run_facts, subtitle_of
from ampo_core.report.figures import Line, with_changes
from ampo_core.report.html import block, facts, folded, paragraph, slug, table, tiles, warned
from ampo_core.report.marks import WENT_ON, signed
from ampo_core.report.page import Page, Section, render
from ampo_core.report.samples import Row, Samples, read_predictions, read_samples
from ampo_core.report.side_by_side import Sides, predictions_beside, rollouts_beside, side_section
from ampo_core.report.sources import WITH_CURVES, Entry, RunData, Subject, collect
from ampo_core.report.summary import summary_html
from ampo_core.report.training import (
    guidance_section,
    health_section,
    learning_section,
    plugin_section,
    replaced_by_teacher,
    run_tiles,
    time_section,
)
from ampo_core.report.watch import warnings_of
from ampo_core.run.disk import refusal
from ampo_core.run.files import write_atomically
from ampo_core.run.folder import SAMPLES
from ampo_core.run.history import marks_of

REPORT, COMPARISON = "report.html", "comparison.html"
MOST_SHOWN = 6
"""Runs that a comparison draws at first; the others wait for a click."""


def report_path(folders: Sequence[Path]) -> Path:
    """Where a report goes: FOLDER/report.html, or comparison.html in the folder that all of them lie in."""
    if len(folders) == 1:
        return folders[0] / REPORT
    parent = Path(commonpath([folder.resolve().parent for folder in folders]))
    return parent / COMPARISON


def write_report(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write the report of the runs in `folders` and return its path: `out`, or that of `report_path`.

    A folder may be that of a run of any job, of a pipeline or of a suite. Raises ConfigError for one that is not, for
    files that cannot be read, and for a place that cannot be written.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError("a report compares different runs: one folder is named twice")
    page = build_page(collect(folders))
    path = out or report_path(folders)
    if not path.parent.is_dir():
        raise ConfigError(f"cannot write the report {path}: there is no folder {path.parent}")
    try:
        write_atomically(path, render(page))
    except OSError as error:
        raise ConfigError(f"cannot write the report {path}: {refusal(path, error)}") from error
    return path


def refresh_report(folder: Path, say: Callable[[str], None], *, quiet: bool = False) -> Path | None:
    """Write the report of what lies in `folder` and say where, unless `quiet`.

    Where that fails, it says so and returns None: a run goes on without its report.
    """
    try:
        path = write_report([folder])
    except Exception as error:
        reason = str(error) if isinstance(error, AmpoError) else repr(error)
        say(f"the report of {folder} could not be written: {reason}")
        return None
    if not quiet:
        say(f"report: {path}")
    return path


def build_page(subject: Subject) -> Page:
    """The page about `subject`. Raises ConfigError if there is nothing to report."""
    if not subject.entries:
        raise ConfigError(f"{subject.title} holds no runs yet")
    if len(subject.entries) > 1 or len(subject.entries[0].runs) > 1:
        return _comparison(subject)
    run = subject.entries[0].runs[0]
    if run.job in WITH_CURVES:
        return _training(run)
    if run.job == "evaluate":
        return _evaluation(run)
    summary = Section("summary", "Summary", summary_html(run))
    return Page(run.name, subtitle_of(run), _said_first([run]) + run_facts(run), [summary, *_ran_with(run)])


def _training(run: RunData) -> Page:
    path = run.path / SAMPLES
    samples = read_samples(path) if path.is_file() else None
    lines = [Line(run.name, [run.curves])]
    rows = samples.rows if samples is not None else ()
    sections = [
        learning_section(lines)
        if run.curves.series
        else Section("curves", "Learning", paragraph("No step is done yet.")),
        guidance_section(run.curves, samples),
        plugin_section(lines),
        time_section(run.curves),
        _rollouts(rows, samples.total) if samples is not None else None,
        health_section(run.curves),
        *_ran_with(run),
    ]
    return Page(
        title=run.name,
        subtitle=subtitle_of(run),
        head=_said_first([run]) + tiles(run_tiles(run)) + run_facts(run),
        sections=[_with_changes(section, run) for section in sections if section is not None],
        legend=[run.name],
        rows=rows,
        extra={"threshold": run.threshold, "teachers": _teachers(run, samples)},
    )


def _with_changes(section: Section, run: RunData) -> Section:
    steps = sorted({item.step for item in marks_of(run.path)})
    groups = [
        replace(part, figures=[with_changes(figure, steps) for figure in part.figures]) for part in section.groups
    ]
    return replace(section, figures=[with_changes(figure, steps) for figure in section.figures], groups=groups)


def _evaluation(run: RunData) -> Page:
    found = gather_scores([Entry(run.name, (run,))], {})
    path = run.path / "predictions.jsonl"
    rows = read_predictions(path) if path.is_file() else ()
    sections = [section for scores in found for section in evaluation_sections(scores)]
    if not sections:
        sections = [Section("evaluation", "Evaluation", paragraph("No results have been written yet."))]
    beside = {"predictions-beside": predictions_beside([Entry(run.name, (run,))])}
    sections += _side_by_side(beside)
    if rows:
        sections.append(_rollouts(rows, None))
    models = list(found[0].models) if found else []
    return Page(
        run.name,
        subtitle_of(run),
        _said_first([run]) + run_facts(run),
        [*sections, *_ran_with(run)],
        rows=rows,
        extra={"threshold": None, **_of_sides(beside, models)},
    )


def _comparison(subject: Subject) -> Page:
    by_job = {job: [entry for entry in subject.entries if entry.job == job] for job in (*WITH_CURVES, "evaluate")}
    others = [entry for entry in subject.entries if entry.job not in by_job]
    drawn = by_job["train"] or by_job["sft"]
    scores = gather_scores(by_job["evaluate"], {entry.name: order for order, entry in enumerate(drawn)})
    sections: list[Section | None] = []
    if drawn:
        lines = lines_of(drawn)
        sections += [
            final_section(drawn, scores),
            learning_section(lines),
            guidance_figures(lines),
            plugin_section(lines),
        ]
    for number, item in enumerate(scores):
        sections += evaluation_sections(item, f"e{number}-" if len(scores) > 1 else "")
    beside = {"rollouts-beside": rollouts_beside(drawn), "predictions-beside": predictions_beside(by_job["evaluate"])}
    sections += _side_by_side(beside)
    if drawn:
        sections += [health_figures(lines), differences_section(drawn) if len(drawn) > 1 else None]
    if by_job["train"] and by_job["sft"]:
        sections.append(final_section(by_job["sft"], scores, title="Supervised runs", id="supervised"))
    for entry in others:
        parts = {run.path.parent.name: summary_html(run) for run in entry.runs}
        html = "".join(folded(*part) if len(parts) > 1 else part[1] for part in parts.items())
        sections.append(Section(f"of-{slug(entry.name)}", entry.name, html))
    return Page(
        title=subject.title,
        subtitle=_kinds(subject),
        head=_said_first([run for entry in subject.entries for run in entry.runs]) + facts(_named(subject)),
        sections=[section for section in sections if section is not None],
        legend=[signed(entry.name, {entry.name: entry.patches}) for entry in drawn],
        hidden=list(range(MOST_SHOWN, len(drawn))),
        extra=_of_sides(beside, [name for entry in drawn for name in replaced_by_teacher(entry.runs[0].curves)]),
    )


def _side_by_side(found: Mapping[str, Sides | None]) -> list[Section]:
    told = {
        "rollouts-beside": ("Rollouts side by side", "at the same step, or at the nearest that samples.jsonl has"),
        "predictions-beside": ("Predictions side by side", "by each model"),
    }
    return [side_section(sides, id, *told[id]) for id, sides in found.items() if sides is not None]


def _of_sides(found: Mapping[str, Sides | None], teachers: Sequence[str]) -> dict[str, Any]:
    sides = {id: item.as_json() for id, item in found.items() if item is not None}
    return {"sides": sides, "teachers": list(dict.fromkeys(teachers))}


def _rollouts(rows: Sequence[Row], total: int | None) -> Section:
    count = f"{len(rows):,} of {total:,} that were written" if total is not None else f"{len(rows):,} of all"
    where = "whole steps, evenly spread over the run" if total is not None else "evenly spread over sets and models"
    note = f"Shown: {count}, {where}. Teacher answers are marked; longer texts open on a click."
    return Section("rollouts", "Rollouts", paragraph(note) + '<div id="rollout-table"></div>')


def _ran_with(run: RunData) -> list[Section]:
    """The resolved config and the versions."""
    versions = {name: version for name, version in (run.manifest.get("versions") or {}).items() if version}
    rows = [[name, str(version)] for name, version in {**versions, **(run.manifest.get("plugins") or {})}.items()]
    parts = block((run.path / "config.yaml").read_text(encoding="utf-8"))
    return [
        Section("config", "Resolved config", parts, folded=True),
        Section("versions", "Versions", table(["package", "version"], rows, left=2), folded=True),
    ]


def _said_first(runs: Sequence[RunData]) -> str:
    """What shows that nothing was learnt, and which runs went on with changes."""
    signs: list[tuple[RunData, object]] = [*warnings_of(runs)]
    patches = [(run, patch) for run in runs for patch in run.patches]
    return (
        warned("Signs that nothing was learnt", _of_runs(runs, signs))
        + warned(WENT_ON, _of_runs(runs, patches))
        + warned("Warned of at the start", _of_starts(runs))
    )


def _of_starts(runs: Sequence[RunData]) -> list[str]:
    """What was said of tokens and questions, each sentence once, with the runs of which it was said in front where it
    was not said of all."""
    names: dict[str, dict[str, None]] = {}
    for run in runs:
        for note in run.manifest.get("notes") or ():
            names.setdefault(str(note), {})[run.name] = None
    every = len({run.name for run in runs})
    return [note if len(of) == every else f"{', '.join(of)}: {note}" for note, of in names.items()]


def _of_runs(runs: Sequence[RunData], said: Sequence[tuple[RunData, object]]) -> list[str]:
    """Each sentence, with its run's name in front where there are several of one."""
    again = len({run.name for run in runs}) < len(runs)
    names = [f"{run.name}, {run.path.parent.name}" if again else run.name for run, _ in said]
    return [f"{name}: {text}" if len(runs) > 1 else str(text) for name, (_, text) in zip(names, said, strict=True)]


def _kinds(subject: Subject) -> str:
    seeds = max(len(entry.runs) for entry in subject.entries)
    several = f", up to {seeds} seeds each" if seeds > 1 else ""
    what = {"suite": "suite", "pipeline": "pipeline"}.get(subject.kind, "comparison")
    return f"{what} of {len(subject.entries)} runs{several}"


def _named(subject: Subject) -> list[tuple[str, str]]:
    unfinished = [
        run.name + (f" ({run.path.parent.name})" if len(entry.runs) > 1 else "")
        for entry in subject.entries
        for run in entry.runs
        if not run.finished
    ]
    jobs = dict.fromkeys(entry.job for entry in subject.entries)
    named = [(job, ", ".join(entry.name for entry in subject.entries if entry.job == job)) for job in jobs]
    return [*named, ("not finished", ", ".join(unfinished))]


def _teachers(run: RunData, samples: Samples | None) -> list[str]:
    """Teachers in the order of their colours, which is that of the guidance figures."""
    found = dict.fromkeys(replaced_by_teacher(run.curves))
    rows = samples.rows if samples is not None else ()
    return list(found | dict.fromkeys(sorted(str(row["who"]) for row in rows if row["teacher"])))
