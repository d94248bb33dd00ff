"""What a run ran with: versions, plugins, seed, data hashes, teachers, platform. Imports none of what it lists."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ampo_core.data.rows import file_hash

PACKAGES = (
    "ampo",
    "torch",
    "transformers",
    "deepspeed",
    "peft",
    "safetensors",
    "math-verify",
    "pydantic",
    "pluggy",
    "vllm",
)


def build_manifest(
    *,
    job: str,
    seed: int,
    plugins: Mapping[str, str],
    data: Iterable[str | Path] = (),
    teachers: Sequence[str] = (),
    models: Iterable[str | Path] = (),
) -> dict[str, Any]:
    """The manifest as JSON types.

    `plugins` maps distributions to versions; `data` are files; `models` are model folders (of which config.json
    is hashed) or Hub names; `teachers` are the names that the teacher pool may answer under.
    """
    return {
        "job": job,
        "seed": seed,
        "versions": {"python": platform.python_version(), **{name: installed_version(name) for name in PACKAGES}},
        "plugins": dict(sorted(plugins.items())),
        "data": {str(path): hash_file(Path(path)) for path in data},
        "models": {str(path): _model_identity(Path(path)) for path in models},
        "teachers": sorted(set(teachers)),
        "platform": {
            "system": platform.platform(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
        },
    }


def installed_version(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def hash_file(path: Path) -> dict[str, str | int]:
    """{sha256, bytes} of a file. Raises OSError if it cannot be read."""
    return {"sha256": file_hash(path), "bytes": path.stat().st_size}


def _model_identity(folder: Path) -> dict[str, str | int] | None:
    config = folder / "config.json"
    return hash_file(config) if config.is_file() else None
