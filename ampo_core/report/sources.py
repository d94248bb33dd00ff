"""Which runs a folder holds: a run of any job, a pipeline with its stages, a suite with its seeds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError
from ampo_registry.text import nearest

from ampo_core.report.curves import RunCurves, read_run
from ampo_core.report.marks import patches
from ampo_core.run.changes import read_config, read_manifest
from ampo_core.run.folder import METRICS

SEED_FOLDER = re.compile(r"seed-\d+")
WITH_CURVES = ("train", "sft")


@dataclass(frozen=True, slots=True)
class RunData:
    """What a run's folder says about it; `curves` is empty where the job has none yet.

    `patches` are the changes that it went on with, in words.
    """

    name: str
    path: Path
    job: str
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]
    finished: bool
    curves: RunCurves
    patches: tuple[str, ...] = ()

    def setting(self, key: str, default: Any = None) -> Any:
        """The config's value at a dotted key; `default` where it is not there."""
        value: Any = self.config
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return default
            value = value[part]
        return value

    @property
    def threshold(self) -> float:
        """From which reward on a response is shown as right: τ, or where that is a schedule its upper limit 1 − λ."""
        found = self.setting("guidance.threshold")
        if isinstance(found, Mapping):
            found = 1.0 - float(self.setting("reward.format_weight", 0.0))
        return float(found) if isinstance(found, int | float) else 0.5

    @property
    def steps(self) -> int:
        """The last step with metrics."""
        return max((series[-1][0] for series in self.curves.series.values()), default=0)


@dataclass(frozen=True, slots=True)
class Entry:
    """One run, or the same run of several seeds."""

    name: str
    runs: tuple[RunData, ...]

    @property
    def job(self) -> str:
        """The job of its runs."""
        return self.runs[0].job

    @property
    def patches(self) -> list[str]:
        """The changes that its runs went on with, in words; of several seeds with the seed's."""
        seeds = [f"{run.path.parent.name}, " if len(self.runs) > 1 else "" for run in self.runs]
        return [seed + patch for seed, run in zip(seeds, self.runs, strict=True) for patch in run.patches]


@dataclass(frozen=True, slots=True)
class Subject:
    """What a report is about. `kind` is the job of a single run, else pipeline, suite or runs."""

    title: str
    kind: str
    entries: tuple[Entry, ...]


def collect(folders: Sequence[Path]) -> Subject:
    """The runs in `folders`. Raises ConfigError, with the nearest match, for one that holds none."""
    if len(folders) == 1:
        folder = folders[0]
        kind = kind_of(folder)
        return Subject(_title(folder), kind, tuple(_group(_members(folder, kind))))
    found = [(path, member) for path in folders for member in _members(path, kind_of(path))]
    names = [member.name for _, member in found]
    told_apart = _apart([member.path for _, member in found]) if len(set(names)) < len(names) else names
    return Subject(
        " · ".join(dict.fromkeys(_title(path) for path in folders)),
        "runs",
        tuple(Entry(name, (member,)) for name, (_, member) in zip(told_apart, found, strict=True)),
    )


def kind_of(folder: Path) -> str:
    """suite, pipeline or the job of a run. Raises ConfigError if `folder` is none of these."""
    if not folder.is_dir():
        raise ConfigError(_not_there(folder))
    if any(SEED_FOLDER.fullmatch(path.name) for path in folder.iterdir() if path.is_dir()):
        return "suite"
    if not (folder / "manifest.json").is_file() or not (folder / "config.yaml").is_file():
        inside = [path.name for path in sorted(folder.iterdir()) if (path / "manifest.json").is_file()]
        hint = f"; did you mean {', '.join(str(folder / name) for name in inside[:4])}?" if inside else ""
        raise ConfigError(f"{folder} is no run folder: it holds no config.yaml and manifest.json{hint}")
    return str(read_manifest(folder).get("job"))


def read_folder(folder: Path, name: str) -> RunData:
    """The run in `folder` under `name`. Raises ConfigError where a file of it cannot be read."""
    manifest, config = read_manifest(folder), read_config(folder)
    job = str(manifest.get("job"))
    has_curves = job in WITH_CURVES and (folder / METRICS).is_file()
    return RunData(
        name=name,
        path=folder,
        job=job,
        config=config,
        manifest=manifest,
        finished=(folder / "done").exists(),
        curves=read_run(name, folder) if has_curves else RunCurves(name, {}),
        patches=tuple(patches(folder)),
    )


def _members(folder: Path, kind: str, name: str | None = None) -> Iterator[RunData]:
    """The runs of `folder`; those of a suite come once a seed, under one name."""
    if kind == "suite":
        for seed in _sorted_seeds(folder):
            for path in _ordered(_run_folders(seed), _names_in(folder, "stages", "runs")):
                yield from _members(path, kind_of(path), path.name)
            for path in sorted(seed.glob("evaluations/*/*")):
                if (path / "manifest.json").is_file():
                    yield read_folder(path, f"{path.parent.name}/{path.name}")
    elif kind == "pipeline":
        for path in _ordered(_run_folders(folder), _names_in(folder, "stages")):
            yield from _members(path, kind_of(path), f"{name}/{path.name}" if name else path.name)
    else:
        yield read_folder(folder, name or _title(folder))


def _group(members: Iterable[RunData]) -> Iterator[Entry]:
    """Runs of one name together, in the order in which the names first come."""
    by_name: dict[str, list[RunData]] = {}
    for member in members:
        by_name.setdefault(member.name, []).append(member)
    for name, runs in by_name.items():
        yield Entry(name, tuple(runs))


def _run_folders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if (path / "manifest.json").is_file()]


def _sorted_seeds(folder: Path) -> list[Path]:
    found = [path for path in folder.iterdir() if path.is_dir() and SEED_FOLDER.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("seed-")))


def _names_in(folder: Path, *keys: str) -> list[str]:
    """The names of stages and runs in the order of the folder's config.yaml, if it has one."""
    config = read_config(folder) if (folder / "config.yaml").is_file() else {}
    blocks = [config.get(key) or () for key in keys]
    return [str(item["name"] if isinstance(item, Mapping) else item) for block in blocks for item in block]


def _ordered(paths: Sequence[Path], names: Sequence[str]) -> list[Path]:
    place = {name: position for position, name in enumerate(names)}
    return sorted(paths, key=lambda path: (place.get(path.name, len(place)), path.name))


def _apart(paths: Sequence[Path]) -> list[str]:
    """Names for folders of the same name: the shortest ends of their paths that differ."""
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(len(part) for part in parts) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise ConfigError(f"{paths[0]} is named twice: give each run once")


def _title(folder: Path) -> str:
    return folder.resolve().name


def _not_there(folder: Path) -> str:
    if folder.exists():
        return f"{folder} is a file; a report needs the folder of a run"
    parent = folder.parent
    if not parent.is_dir():
        return f"there is no folder {folder}, nor {parent}"
    near = nearest(folder.name, [path.name for path in parent.iterdir() if path.is_dir()])
    return f"there is no folder {folder}" + (f"; did you mean {parent / near}?" if near else "")
