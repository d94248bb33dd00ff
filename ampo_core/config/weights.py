"""The modules of a model on this machine, as its safetensors files name them. No torch."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from ampo_core.config.models import config_file
from ampo_core.config.nodes import Finding, KeyPath, nearest
from ampo_core.config.tree import ModelConfig

_MAX_HEADER = 100_000_000


def matrices_of(path: str) -> frozenset[str]:
    """The modules of the model `path` whose weight is a matrix, by their dotted names; none if its files are not here.

    What is stored without a plain weight (quantised, say) counts too.
    """
    config = config_file(path)
    if config is None:
        return frozenset()
    shapes: dict[str, int] = {}
    for file in sorted(config.parent.glob("model*.safetensors")):
        shapes.update(_dimensions(file))
    return frozenset(name.rpartition(".")[0] for name, n in shapes.items() if n == 2 or not name.endswith(".weight"))


def unadapted(model: ModelConfig) -> Iterator[Finding]:
    """The `target_modules` of `model.lora` that the model has no matrix for."""
    targets = model.lora.target_modules if model.lora is not None else "all-linear"
    found = matrices_of(model.path) if targets != "all-linear" else frozenset()
    if not found:
        return
    names = list(dict.fromkeys(sorted(name.rpartition(".")[2] for name in found)))
    path: KeyPath = ("model", "lora", "target_modules")
    for i, target in enumerate(targets):
        if not any(name == target or name.endswith(f".{target}") for name in found):
            yield Finding((*path, i), f"the model {model.path} has no matrix named {target!r}{nearest(target, names)}")


def _dimensions(file: Path) -> Iterator[tuple[str, int]]:
    """(name, dimensions) of each tensor of a safetensors file; nothing of one that cannot be read, which is said when
    it is loaded."""
    try:
        with file.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(size)) if size <= _MAX_HEADER else {}
        tensors = header.items() if isinstance(header, Mapping) else ()
        yield from ((name, len(tensor["shape"])) for name, tensor in tensors if name != "__metadata__")
    except (OSError, ValueError, TypeError, KeyError, struct.error):
        return
