"""The rows of the table, written one by one, so that a part that fails keeps what it found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu.world import Scale


@dataclass(frozen=True, slots=True)
class Setting:
    """What a part runs with: `folder` holds model/, questions.jsonl and runs/."""

    scale: Scale
    cuda: bool
    rollout: str
    folder: Path

    @property
    def device(self) -> str:
        """The name that torch knows the device by."""
        return "cuda" if self.cuda else "cpu"


class Rows:
    """Appends (what, value) to a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, what: str, value: str) -> None:
        """Write a row."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([what, value]) + "\n")

    @staticmethod
    def read(path: Path) -> list[tuple[str, str]]:
        """All rows of `path`; none if nothing was written."""
        if not path.exists():
            return []
        return [(what, value) for what, value in map(json.loads, path.read_text("utf-8").splitlines())]


def seconds(values: Mapping[str, Any], *names: str) -> str:
    """The times of a step's hops, in order: `21.2 / 0.1 s`."""
    return " / ".join(f"{values.get(f'time/{name}_s', 0.0):.2f}" for name in names) + " s"
