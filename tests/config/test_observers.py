"""`observers: {NAME: false}`: who is known by that name, in the jobs that call observers."""

from __future__ import annotations

from pathlib import Path

import pytest
from ampo_registry import ConfigError
from ampo_registry.discovery import Plugins, discover

from ampo_core.config.load import load_config

OBSERVER = "from ampo_registry import hookimpl\n\n\n@hookimpl\ndef ampo_run_started(): ...\n"
JOBS = {
    "train": "job: train\nmodel: {path: m}\ndata: {train: [t.jsonl]}\n",
    "sft": "job: sft\nmodel: {path: m}\ndata: {train: [t.jsonl]}\n",
    "evaluate": "job: evaluate\nmodels: {a: {path: m}}\nevaluation: {sets: {s: {path: t.jsonl}}}\n",
}


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Plugins:
    folder = tmp_path_factory.mktemp("observers")
    files = {"seeing_observer.py": OBSERVER, "torn_observer.py": "1 / 0\n"}
    for name, code in files.items():
        (folder / name).write_text(code)
    return discover([folder / name for name in files])


def observers(job: str, written: str, plugins: Plugins, folder: Path) -> dict[str, bool]:
    path = folder / "config.yaml"
    path.write_text(f"{JOBS[job]}observers: {written}\n")
    found: dict[str, bool] = load_config(path, (), plugins).data["observers"]
    return found


@pytest.mark.parametrize("job", JOBS)
def test_a_known_one_is_turned_off_and_an_unknown_one_answered_with_the_nearest(
    job: str, plugins: Plugins, tmp_path: Path
) -> None:
    assert observers(job, "{}", plugins, tmp_path) == {}
    assert observers(job, "{seeing_observer: false}", plugins, tmp_path) == {"seeing_observer": False}
    with pytest.raises(ConfigError) as caught:
        observers(job, "{seing_observer: false}", plugins, tmp_path)
    assert str(caught.value).endswith(
        "observers.seing_observer: no observer is named 'seing_observer'; did you mean seeing_observer? "
        "(allowed: seeing_observer, torn_observer)"
    )


def test_a_broken_plugin_may_be_one_and_what_brings_components_alone_is_none(plugins: Plugins, tmp_path: Path) -> None:
    assert observers("sft", "{torn_observer: false}", plugins, tmp_path) == {"torn_observer": False}
    with pytest.raises(ConfigError, match="no observer is named 'ampo_losses'"):
        observers("sft", "{ampo_losses: false}", plugins, tmp_path)


def test_a_job_that_calls_none_has_no_such_key(plugins: Plugins, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("job: prepare\ntask: labelled_arithmetic\nobservers: {seeing_observer: false}\n")
    with pytest.raises(ConfigError, match="observers: no such key"):
        load_config(path, (), plugins)
