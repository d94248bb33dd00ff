"""What a run needs of this machine: components that can run here, and files that are there.

`--check` says these as warnings; a real run ends with exit 2 before anything starts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError
from ampo_registry.specs import ComponentSpec
from pydantic import BaseModel

from ampo_core.config.jobs import EvaluateJob, Job, PoolJob, SftJob, SuiteJob, TrainJob, resources_of
from ampo_core.config.models import model_folder
from ampo_core.config.nodes import KeyPath
from ampo_core.config.pool_checks import pool_missing, uses_rollout
from ampo_core.config.references import is_filled_in
from ampo_core.config.tree import SampledModel

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def unavailable(job: Job) -> Iterator[tuple[KeyPath, str]]:
    """Components of `job` that cannot run here, with their own reason; keys and packages that endpoints lack."""
    if isinstance(job, PoolJob):
        yield from pool_missing(job)
    for path, spec in _components(job, ()):
        if path == ("rollout",) and not _samples(job):
            continue
        try:
            reason = spec.unavailable()
        except Exception as error:  # a plugin's own code; said as the reason, not as a fault of the engine
            reason = f"unavailable() of {type(spec).__name__} raised {type(error).__name__}: {error}"
        if reason is not None:
            yield path, reason


def missing_files(job: Job) -> Iterator[tuple[KeyPath, str]]:
    """Models, data and other files of `job` that are not there."""
    for path, model in _models(job):
        yield from _missing_model(path, model, may_be_run=isinstance(job, EvaluateJob))
    for key, name in _evaluated(job):
        yield from ((key, text) for _, text in _missing_model(key, SampledModel(path=name), may_be_run=True))
    for path, text in _files(job):
        if not is_filled_in(text) and not Path(text).exists():
            yield path, f"there is no {text} (from {Path.cwd()})"


def hub_models(job: Job) -> Iterator[tuple[KeyPath, str]]:
    """Models that are named by their Hub name and would have to be downloaded."""
    named = [((*path, "path"), model.path) for path, model in _models(job)]
    for key, name in [*named, *_evaluated(job)]:
        if not _offline() and _on_hub(name) and not _cached(name):
            yield key, f"{name} is not on this machine; a run would download it from the Hub"


def _evaluated(job: Job) -> list[tuple[KeyPath, str]]:
    """The models that a suite only evaluates, where they are named and not made by one of its stages."""
    if not isinstance(job, SuiteJob):
        return []
    shown = {row for table in job.shown_tables().values() for row in table.rows}
    named = [(name, run.model) for name, run in job.members().items() if run.model is not None and name in shown]
    return [(("runs", name, "model"), model) for name, model in named if not is_filled_in(model)]


def _components(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, ComponentSpec]]:
    if isinstance(value, ComponentSpec):
        yield path, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _components(getattr(value, name), (*path, name))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _components(item, (*path, name))
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _components(item, (*path, i))


def _samples(job: Job) -> bool:
    """False for a job whose rollout would only be built to sit there."""
    if isinstance(job, EvaluateJob):
        return not job.predictions
    return not isinstance(job, PoolJob) or uses_rollout(job)


def _models(job: Job) -> Iterator[tuple[KeyPath, SampledModel]]:
    if isinstance(job, (TrainJob, SftJob)):
        yield ("model",), job.model
    if isinstance(job, EvaluateJob) and not job.predictions:
        for name, model in job.models.items():
            yield ("models", name), model
    if isinstance(job, PoolJob):
        yield ("student",), job.student
        for i, teacher in enumerate(job.teachers):
            if teacher.model is not None:
                yield ("teachers", i, "model"), teacher.model


def _files(job: Job) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(job, (TrainJob, SftJob)):
        yield from ((("data", "train", i), text) for i, text in enumerate(job.data.train))
    if isinstance(job, PoolJob):
        yield from ((("questions", i), text) for i, text in enumerate(job.questions))
    if isinstance(job, (TrainJob, EvaluateJob)) and job.evaluation is not None and _samples(job):
        yield from ((("evaluation", "sets", name, "path"), item.path) for name, item in job.evaluation.sets.items())
    if isinstance(job, EvaluateJob):
        yield from ((("predictions", i), text) for i, text in enumerate(job.predictions))
        yield from ((("comparison", "curves", name), text) for name, text in job.comparison.curves.items())
    resources = resources_of(job)
    if resources is not None and resources.hostfile is not None:
        yield ("resources", "hostfile"), resources.hostfile


def _missing_model(path: KeyPath, model: SampledModel, *, may_be_run: bool) -> Iterator[tuple[KeyPath, str]]:
    template = model.chat_template
    if template is not None and not is_filled_in(template) and not Path(template).is_file():
        yield (*path, "chat_template"), f"there is no file {template}"
    if is_filled_in(model.path) or _cached(model.path):
        return
    try:
        found = model_folder(model.path)
    except ConfigError as error:
        yield (*path, "path"), str(error)
        return
    if found != model.path and not may_be_run:
        yield (*path, "path"), f"{model.path} is a run or a checkpoint; name the folder of its model: {found}"
    elif Path(found).is_dir():
        if not (Path(found) / "config.json").is_file():
            yield (*path, "path"), f"{model.path} is no Hugging Face model: it has no config.json"
    elif _offline() and _on_hub(model.path):
        yield (
            (*path, "path"),
            f"there is no folder {model.path}, nor is it in the Hugging Face cache (HF_HUB_OFFLINE is set)",
        )
    elif not _on_hub(model.path):
        yield (*path, "path"), f"there is no model folder {model.path} (from {Path.cwd()})"


def _on_hub(path: str) -> bool:
    """True iff `path` can only be a Hub name: name or owner/name, where no such folder or owner folder is here."""
    return _HUB_NAME.fullmatch(path) is not None and not Path(path.partition("/")[0]).exists()


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def _cached(path: str) -> bool:
    """True iff the Hub name `path` has a snapshot in the Hugging Face cache."""
    if not _HUB_NAME.fullmatch(path):
        return False
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    return any((cache / f"models--{path.replace('/', '--')}").glob("snapshots/*/config.json"))
