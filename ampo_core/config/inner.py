"""The configs that a pipeline or a suite names: where they are, whether they may stand there, what they refer to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ampo_core.config.jobs import EvaluateJob, Job, PipelineJob, SftJob, SuiteJob, TrainJob
from ampo_core.config.nodes import KeyPath, Node, nearest
from ampo_core.config.references import ATTEMPT, REFERENCE, THIS, leaves, names_in


@dataclass(frozen=True, slots=True)
class Inner:
    """A config that another one names at `path`. `known` are the names that it may refer to."""

    path: KeyPath
    config: str
    overrides: Mapping[str, Any]
    known: tuple[str, ...]


def inner_configs(job: Job) -> list[Inner]:
    """The configs that `job` names, in the order in which they run."""
    if not isinstance(job, (PipelineJob, SuiteJob)):
        return []
    stages = [stage.name for stage in job.stages]
    found = [
        Inner(("stages", i), stage.config, stage.overrides, tuple(stages[:i])) for i, stage in enumerate(job.stages)
    ]
    if isinstance(job, SuiteJob):
        earlier = list(stages)
        for name, run in job.members().items():
            if run.config is not None:
                path: KeyPath = ("runs", name)
                found.append(Inner(path, run.config, run.overrides, tuple(earlier)))
            earlier.append(name)
        known = (*stages, THIS)
        found += [Inner(("evaluations", name), config, {}, known) for name, config in job.evaluations.items()]
    return found


def misplaced(inner: Inner, job: Job) -> str | None:
    """Why `job` cannot stand where `inner` names it, or None."""
    place = str(inner.path[0])
    if place == "stages" and isinstance(job, (PipelineJob, SuiteJob)):
        return f"a stage cannot be a {job.job}"
    if place == "runs" and not isinstance(job, (TrainJob, SftJob, PipelineJob)):
        return f"a run of a suite is a train, sft or pipeline job, and this is a {job.job} job"
    if place == "evaluations" and not _evaluates_this(job):
        return "an evaluation of a suite is an evaluate job with one model, whose path is ${runs.this.out}"
    return None


def _evaluates_this(job: Job) -> bool:
    if not isinstance(job, EvaluateJob) or job.predictions or len(job.models) != 1:
        return False
    return all(names_in(model.path) == {THIS} for model in job.models.values())


def runs_left_out(job: Job, written: Mapping[KeyPath, object]) -> set[KeyPath]:
    """The runs of a suite that its `only` leaves out: in no table asked for, nor referred to by one that is.

    `written` holds what each run says; nothing is left out of other jobs.
    """
    if not isinstance(job, SuiteJob):
        return set()
    needed = {row for table in job.shown_tables().values() for row in table.rows}
    # a run refers to earlier ones alone, so one pass from the last to the first finds all
    for name in reversed(job.runs):
        if name in needed:
            needed |= names_in(written.get(("runs", name), job.members()[name].model))
    return {("runs", name) for name in job.runs if name not in needed}


def bad_references(known: Sequence[str], value: object) -> Iterator[str]:
    """What is wrong with each `${...}` in the texts of `value`: only what has run before is known."""
    for _, text in leaves(value):
        for attempt in ATTEMPT.finditer(text):
            inside = attempt[1]
            found = REFERENCE.fullmatch(f"${{{inside}}}")
            if found is None:
                yield (
                    f"${{{inside}}} is not of the form ${{stages.NAME.out}} (its output) or .run (its folder); "
                    "in a suite also ${runs.NAME.out}"
                )
            elif found[1] not in known:
                yield f"${{{inside}}}: no earlier {_kind(inside)} is named {found[1]!r}{nearest(found[1], known)}"


def _kind(reference: str) -> str:
    return "run" if reference.startswith("runs.") else "stage"


def with_absolute_paths(root: Node, path: Path) -> Node:
    """`root`, read from `path`, with the configs it names as absolute paths: each is relative to the file that says
    it."""
    entries = dict(root.value) if isinstance(root.value, dict) else {}
    stages = entries.get("stages")
    if stages is not None and isinstance(stages.value, list):
        entries["stages"] = Node([_absolute(stage, "config", path) for stage in stages.value], stages.place)
    for block in ("runs", "evaluations"):
        found = entries.get(block)
        if found is None or not isinstance(found.value, dict):
            continue
        items = {name: _absolute(item, "config", path) for name, item in found.value.items()}
        block_node = Node(items, found.place)
        for name in items:
            block_node = _absolute(block_node, name, path)
        entries[block] = block_node
    return Node(entries, root.place)


def _absolute(node: Node, key: str, path: Path) -> Node:
    config = node.child(key)
    if not isinstance(node.value, dict) or config is None or not isinstance(config.value, str):
        return node
    folder = Path(config.place.source).parent if config.place.line else path.parent
    target = Path(os.path.abspath(folder / config.value)).as_posix()
    return Node({**node.value, key: Node(target, config.place)}, node.place)
