"""What a run needs of this machine: components that can run here, and files that are there; and what components say of
their own options.

`--check` says what is missing as warnings; a real run ends with exit 2 before anything starts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from ampo_registry.errors import ConfigError

from ampo_core.config.data_files import HubData, is_here
from ampo_core.config.job import Job, NamedModel
from ampo_core.config.models import HUB_NAME, cached_config, model_folder
from ampo_core.config.nodes import Finding, KeyPath
from ampo_core.config.references import is_filled_in


def unavailable(job: Job) -> Iterator[tuple[KeyPath, str]]:
    """What `job` lacks here besides files: keys, packages, components that cannot run, with their own reason."""
    yield from job.lacks()
    for read in job.used_data():
        if isinstance(read.file, HubData) and find_spec("datasets") is None:
            yield read.path, "the package datasets is not installed: pip install 'ampo-rl[data]'"
    for path, spec in job.used_components():
        reason = spec.unavailable()
        if reason is not None:
            yield path, reason


def component_warnings(job: Job) -> Iterator[Finding]:
    """What the components of `job` say of their own options."""
    for path, spec in job.used_components():
        yield from (Finding((*path, option), text, "warning") for option, text in spec.warnings())


def missing_files(job: Job) -> Iterator[tuple[KeyPath, str]]:
    """Models, data and other files of `job` that are not there."""
    for model in job.used_models():
        template = model.chat_template
        if template is not None and not is_filled_in(template) and not os.path.isfile(template):
            yield (*model.path[:-1], "chat_template"), f"there is no file {template}"
        reason = None if is_filled_in(model.name) or cached_config(model.name) else _missing(model)
        if reason is not None:
            yield model.path, reason
    files = [(read.path, read.file) for read in job.used_data()]
    for path, text in (*((path, file) for path, file in files if isinstance(file, str)), *job.used_files()):
        if not is_filled_in(text) and not os.path.exists(text):
            yield path, f"there is no {text} (from {Path.cwd()})"
    for path, file in files:
        if isinstance(file, HubData) and not is_filled_in(file.hub) and not is_here(file):
            if not _on_hub(file.hub):
                yield (*path, "hub"), f"there is no folder {file.hub} (from {Path.cwd()})"
            elif _offline():
                text = "nor is it in the cache of the package datasets (HF_HUB_OFFLINE is set)"
                yield (*path, "hub"), f"there is no folder {file.hub}, {text}"


def downloads(job: Job) -> Iterator[tuple[KeyPath, str]]:
    """Models and data sets that are named by their Hub name and would have to be downloaded."""
    for read in job.used_data():
        if isinstance(file := read.file, HubData) and not _offline() and _on_hub(file.hub) and not is_here(file):
            yield (*read.path, "hub"), f"{file.hub} is not on this machine; a run would download it from the Hub"
    for model in job.used_models():
        if not _offline() and _on_hub(model.name) and not cached_config(model.name):
            yield model.path, f"{model.name} is not on this machine; a run would download it from the Hub"


def _missing(model: NamedModel) -> str | None:
    name = model.name
    try:
        found = model_folder(name)
    except ConfigError as error:
        return str(error)
    if found != name and not model.may_be_run:
        return f"{name} is a run or a checkpoint; name the folder of its model: {found}"
    if os.path.isdir(found):
        whole = os.path.isfile(Path(found) / "config.json")
        return None if whole else f"{name} is no Hugging Face model: it has no config.json"
    if not _on_hub(name):
        return f"there is no model folder {name} (from {Path.cwd()})"
    if _offline():
        return f"there is no folder {name}, nor is it in the Hugging Face cache (HF_HUB_OFFLINE is set)"
    return None


def _on_hub(path: str) -> bool:
    """True iff `path` can only be a Hub name: name or owner/name, where no such folder or owner folder is here."""
    return HUB_NAME.fullmatch(path) is not None and not os.path.exists(path.partition("/")[0])


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
