"""`run_steps`: a few real training steps, for the test of a plugin."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ampo_core.testing.world import TinyWorld, temporary_folder, tiny_world

if TYPE_CHECKING:
    from ampo_registry.discovery import Plugins
    from ampo_registry.specs import ComponentSpec

SMALL: dict[str, Any] = {
    "model": {"dtype": "float32", "gradient_checkpointing": False},
    "data": {"max_prompt_tokens": 128},
    "rollout": {"type": "transformers", "group_size": 4, "max_response_tokens": 32},
    "reward": {"workers": 1},
    "training": {
        "questions_per_batch": 8,
        "questions_per_minibatch": 4,
        "tokens_per_microbatch": 1024,
        "learning_rate": 1e-3,
        "warmup_steps": 0,
    },
    "deepspeed": {"zero_stage": 0},
    "checkpoint": {"every": None, "best": None},
    "resources": {"devices": 1, "nodes": 1, "threads": 1},
    "tracking": [],
}
LEFT_OUT: dict[str, Any] = {
    "evaluation": None,
    "data": dict.fromkeys(("layout", "columns", "answer_pattern", "weights")),
}
"""What of a config file has no place in a tiny world."""


@dataclass(frozen=True, slots=True)
class Steps:
    """What `run_steps` leaves.

    `metrics` are the lines of metrics.jsonl and `samples` those of samples.jsonl, in JSON types; `folder` is the run's
    and `policy` the final model's; `said` is what a screen would have shown, and `faults` has a line for each observer
    that failed.
    """

    folder: Path
    policy: Path
    metrics: tuple[Mapping[str, Any], ...]
    samples: tuple[Mapping[str, Any], ...]
    said: str
    faults: tuple[str, ...]


def run_steps(
    config: Mapping[str, Any] | str | Path | None = None,
    steps: int = 2,
    *,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    plugins: Sequence[type[ComponentSpec] | ModuleType | str | Path] = (),
    task: str | Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> Steps:
    """Train a tiny model for some steps in this process: the real loop, with DeepSpeed, sampler, verifier and files.

    A mapping `config` has the keys of a train job that are to be otherwise than the tiny world has them. Of a config
    file, model, data, sampler and sizes are replaced by the tiny world's, and evaluation and trackers are left out.
    `overrides` come last, as on the command line.

    `plugins` are spec classes, modules with hooks, or plugin files, beside what is installed. `task` makes the
    questions, and the start model if it brings one, in place of the tiny world. `folder` gets the run; a temporary one
    by default. A script calls it under `if __name__ == "__main__":`, for the verifier's processes import the script.
    Raises what a run raises, ConfigError for another job than train, and PluginError where one of `plugins` is broken.
    """
    from ampo_core.config.load import load_config

    _check(config)
    place = (folder or temporary_folder("steps")).absolute()
    place.mkdir(parents=True, exist_ok=True)
    found, faults = _with(plugins), list[str]()
    found.report = faults.append
    world = tiny_world() if task is None else _made_by(task, place, found)
    small = _merged(
        SMALL,
        {
            "run": {"dir": str(place), "name": "run"},
            "model": {"path": str(world.model)},
            "data": {"train": [str(world.train)]},
            "training": {"steps": steps},
        },
    )
    if isinstance(config, str | Path):
        given, over = {"extends": str(Path(config).absolute())}, _merged(small, LEFT_OUT)
    else:
        given = {"job": "train", **_merged(small, {"reward": {"type": "exact"}})}
        over = dict(config or {})
    _write(place / "given.yaml", given)
    loaded = load_config(_write(place / "config.yaml", {"extends": "given.yaml", **over}), overrides, found)
    policy, said = _run(loaded.job, loaded, found)
    run = loaded.job.run.folder
    return Steps(run, policy, _lines(run / "metrics.jsonl"), _lines(run / "samples.jsonl"), said, tuple(faults))


def _check(config: Mapping[str, Any] | str | Path | None) -> None:
    """Raise ConfigError for another job than train, and RuntimeError in a process that multiprocessing is starting and
    that is importing the main script for it."""
    from ampo_registry.errors import ConfigError

    if isinstance(config, Mapping) and (job := config.get("job", "train")) != "train":
        raise ConfigError(f"run_steps runs a train job, found job: {job}")
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError('run_steps stands in a script outside `if __name__ == "__main__":`; put it there')


def _with(given: Sequence[type[ComponentSpec] | ModuleType | str | Path]) -> Plugins:
    """The installed plugins and those that are given; one that is both counts once."""
    from ampo_registry.discovery import discover
    from ampo_registry.errors import PluginError
    from ampo_registry.markers import hookimpl
    from ampo_registry.sources import PluginSource

    found = discover([item for item in given if isinstance(item, str | Path)])
    known = {entry.spec for entry in found.catalog.entries()}
    specs = [item for item in given if isinstance(item, type) and item not in known]
    before = len(found.broken)

    class Given:
        @staticmethod
        @hookimpl
        def ampo_specs() -> list[type[ComponentSpec]]:
            return specs

    if specs:
        found.add(PluginSource("plugins", "run_steps", "0", Given))
    for module in given:
        if isinstance(module, ModuleType) and not found.has(module):
            name = module.__name__.removeprefix("ampo_")
            found.add(PluginSource(name, "run_steps", "0", partial(_same, module)))
    found.catalog.check_options()
    files = {str(item) for item in given if isinstance(item, str | Path)}
    broken = [str(plugin) for i, plugin in enumerate(found.broken) if i >= before or plugin.distribution in files]
    if broken:
        raise PluginError("\n".join(broken))
    return found


def _same(module: ModuleType) -> ModuleType:
    return module


def _made_by(task: str | Mapping[str, Any], place: Path, plugins: Plugins) -> TinyWorld:
    """The world of a task, as the prepare job writes it."""
    from ampo_core.config.load import load_config

    config = {
        "job": "prepare",
        "run": {"dir": str(place), "name": "prepare"},
        "task": task,
        "reward": {"type": "exact", "workers": 1},
    }
    loaded = load_config(_write(place / "prepare.yaml", config), (), plugins)
    made, _ = _run(loaded.job, loaded, plugins)
    model, (heldout, *_) = made / "model", [*sorted((made / "heldout").glob("*.parquet")), Path()]
    return TinyWorld(model if model.is_dir() else tiny_world().model, made / "train.parquet", heldout)


def _run(job: Any, loaded: Any, plugins: Plugins) -> tuple[Path, str]:
    """The output of a job, and what it said."""
    from rich.console import Console

    from ampo_core.jobs.table import run_job
    from ampo_core.run.environment import Environment

    loaded.require_ready()
    screen = StringIO()
    output = run_job(job, Environment.of(loaded, plugins, console=Console(file=screen, width=120)))
    assert output is not None
    return output, screen.getvalue()


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two mappings of blocks, block by block."""
    both = {name: {**base[name], **block} for name, block in over.items() if isinstance(base.get(name), dict)}
    return {**base, **over, **both}


def _write(path: Path, config: Mapping[str, Any]) -> Path:
    """JSON is YAML."""
    path.write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
    return path


def _lines(path: Path) -> tuple[Mapping[str, Any], ...]:
    return tuple(json.loads(line) for line in path.read_text("utf-8").splitlines()) if path.exists() else ()
