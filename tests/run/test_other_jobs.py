"""Jobs without checkpoints: finished they are left alone, unfinished they start over, changed they are refused."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from ampo_registry import ConfigError
from ampo_registry.discovery import Plugins, discover
from rich.console import Console

from ampo_core.config.load import load_config
from ampo_core.jobs.table import run_job
from ampo_core.run.environment import Environment
from ampo_core.run.folder import RunFolder
from ampo_core.run.lock import held
from ampo_core.run.manifest import build_manifest

pytestmark = pytest.mark.process

CONFIG = """\
job: prepare
task: {type: labelled_arithmetic, questions: 6, heldout_per_level: 1, warmup_examples: 5}
reward: {type: math_verify, workers: 1}
"""


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return discover()


def prepare(folder: Path, plugins: Plugins, *overrides: str, start: bool = False, allow: bool = False) -> str:
    """Run the job, or only leave its folder as a run does that died early; returns what was said."""
    path = folder / "prepare.yaml"
    path.write_text(CONFIG)
    loaded = load_config(path, [f"run.dir={folder}", "run.name=w", *overrides], plugins)
    screen = StringIO()
    environment = Environment.of(loaded, plugins, console=Console(file=screen, width=200), allow_changes=allow)
    if start:
        manifest = build_manifest(job="prepare", seed=0, plugins={})
        (RunFolder.create(loaded.job.run, environment.yaml, manifest).path / "half-written").touch()
    else:
        assert run_job(loaded.job, environment) == folder / "w" / "out"
    return screen.getvalue()


def test_an_unfinished_one_starts_over_and_a_finished_one_is_left_alone(tmp_path: Path, plugins: Plugins) -> None:
    prepare(tmp_path, plugins, start=True)
    assert f"{tmp_path / 'w'}: unfinished, starts over" in prepare(tmp_path, plugins)
    assert not (tmp_path / "w" / "half-written").exists()
    assert not (tmp_path / "w" / ".lock").exists()
    written = (tmp_path / "w" / "out" / "train.parquet").stat().st_mtime_ns
    said = prepare(tmp_path, plugins)
    assert said == f"{tmp_path / 'w'} is finished already; its output is {tmp_path / 'w' / 'out'}\n"
    assert (tmp_path / "w" / "out" / "train.parquet").stat().st_mtime_ns == written
    with pytest.raises(ConfigError, match=r"holds a finished run(?s:.*)task\.questions: 6 -> 7"):
        prepare(tmp_path, plugins, "task.questions=7")
    with pytest.raises(ConfigError, match="a finished prepare job cannot go on"):
        prepare(tmp_path, plugins, "task.questions=7", allow=True)


def test_an_unfinished_one_of_another_config_is_refused_unless_allowed(tmp_path: Path, plugins: Plugins) -> None:
    prepare(tmp_path, plugins, start=True)
    with pytest.raises(ConfigError, match=r"holds an unfinished run(?s:.*)task\.questions: 6 -> 7"):
        prepare(tmp_path, plugins, "task.questions=7")
    assert (tmp_path / "w" / "half-written").exists()
    prepare(tmp_path, plugins, "task.questions=7", allow=True)
    assert "questions: 7" in (tmp_path / "w" / "config.yaml").read_text()


def test_two_processes_do_not_share_a_folder(tmp_path: Path, plugins: Plugins) -> None:
    prepare(tmp_path, plugins, start=True)
    with held(tmp_path / "w"):
        (tmp_path / "w" / ".lock").write_text("process 7 on elsewhere\n")
        with pytest.raises(ConfigError, match="is in use by process 7 on elsewhere"):
            prepare(tmp_path, plugins)
        with pytest.raises(ConfigError, match="is in use by"), held(tmp_path / "w"):
            pass
    assert (tmp_path / "w" / "half-written").exists()
