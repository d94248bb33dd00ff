"""An edit of a plugin between two halves of a run is noticed, as that of a data file is."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ampo_registry import ConfigError, RunError
from ampo_registry.discovery import discover

from ampo_core.run.changes import manifest_differences, of_older_release
from ampo_core.run.files import write_json
from ampo_core.run.manifest import build_manifest
from ampo_core.run.plugin_code import code_of
from ampo_core.testing import run_steps

CODE = '''
from pathlib import Path
from typing import Literal

from ampo_registry import LossSpec, hookimpl

from edited_plugin.helpers import SCALE


class Edited(LossSpec):
    """A loss that ends a run in its second step where there is a file `stop`."""

    type: Literal["edited"] = "edited"

    def token_losses(self, view):
        if view.context.step == 2 and Path(__file__).with_name("stop").exists():
            raise RuntimeError("stopped")
        return -SCALE * view.advantages * view.log_probs


@hookimpl
def ampo_specs():
    return [Edited]
'''
OBSERVER = "from ampo_registry import hookimpl\n\n\n@hookimpl\ndef ampo_run_started(): ...\n"
IN_USE = {"objective": {"on_policy": {"loss": {"type": "edited"}}}}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with a loss, and a module that observes, installed as `pip install -e` does: their metadata lies among
    installed packages, and what is imported does not."""
    before = set(sys.modules)
    info = tmp_path / "site-packages" / "edited_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "entry_points.txt").write_text("[ampo]\nedited = edited_plugin\nseen = seen_plugin\n")
    folder = tmp_path / "source"
    (folder / "edited_plugin").mkdir(parents=True)
    (folder / "edited_plugin" / "__init__.py").write_text(CODE)
    (folder / "edited_plugin" / "helpers.py").write_text("SCALE = 1.0\n")
    (folder / "seen_plugin.py").write_text(OBSERVER)
    for path in (info.parent, folder):
        monkeypatch.syspath_prepend(str(path))
    yield folder
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("edited_plugin", "seen_plugin"):
            del sys.modules[name]


@pytest.mark.process
def test_a_run_does_not_go_on_with_an_edited_plugin(source: Path, tmp_path: Path) -> None:
    config = {**IN_USE, "checkpoint": {"every": 1}}
    helpers = source / "edited_plugin" / "helpers.py"
    stop = source / "edited_plugin" / "stop"
    stop.touch()
    with pytest.raises(RunError, match="stopped"):
        run_steps(config, folder=tmp_path)
    stop.unlink()
    helpers.write_text("SCALE = 7.0\n")
    with pytest.raises(ConfigError) as refused:
        run_steps(config, folder=tmp_path)
    (line,) = [line for line in str(refused.value).splitlines() if " -> " in line]
    name = re.escape("plugin_files.edited-plugin.edited_plugin/helpers.py")
    assert re.fullmatch(rf"  {name}: 'sha256 [0-9a-f]{{64}}' -> 'sha256 [0-9a-f]{{64}}'", line)
    assert "allow them with --allow-changes" in str(refused.value)
    helpers.write_text("SCALE = 1.0\n")
    done = run_steps(config, folder=tmp_path)
    assert "goes on after step 1 of 2" in done.said
    assert [line["step"] for line in done.metrics] == [1, 2]


def files(config: dict[str, object], *given: Path) -> dict[str, list[str]]:
    found = code_of(discover(given), config)["plugin_files"]
    return {name: sorted(hashes) for name, hashes in found.items()}


def test_what_a_run_may_use_is_known_by_its_files(source: Path) -> None:
    loss, observer = ["edited_plugin/__init__.py", "edited_plugin/helpers.py"], ["seen_plugin.py"]
    assert files(IN_USE) == {"edited-plugin": [*loss, *observer]}
    assert files({}) == {"edited-plugin": observer}
    assert files({"observers": {"seen": False}}) == {}


def test_what_is_installed_as_it_is_stands_there_by_its_version(source: Path, tmp_path: Path) -> None:
    place = tmp_path / "site-packages"
    for path in list(source.iterdir()):
        path.rename(place / path.name)
    assert files(IN_USE) == {}


def test_a_package_that_is_named_as_a_file_is_known_by_all_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "named_package_plugin"
    folder.mkdir()
    (folder / "__init__.py").write_text(OBSERVER)
    (folder / "more.py").write_text("")
    lone = tmp_path / "lone_file_plugin.py"
    lone.write_text(OBSERVER)
    try:
        assert files({}, folder / "__init__.py", lone) == {
            "named_package_plugin": ["named_package_plugin/__init__.py", "named_package_plugin/more.py"]
        }
    finally:
        sys.path.remove(str(tmp_path))


def test_a_package_of_functions_is_known_by_all_its_files_if_the_config_names_one(tmp_path: Path) -> None:
    folder = tmp_path / "functions_package_plugin"
    folder.mkdir()
    (folder / "__init__.py").write_text("from functions_package_plugin.scores import other\ndef compute_score(): ...\n")
    (folder / "scores.py").write_text("def other(): ...\n")
    known = ["functions_package_plugin/__init__.py", "functions_package_plugin/scores.py"]
    try:
        for name in ("compute_score", "functions_package_plugin.compute_score", "other"):
            config = {"reward": {"type": "sum", "parts": [{"reward": {"type": "function", "function": name}}]}}
            assert files(config, folder / "__init__.py") == {"functions_package_plugin": known}
        assert files({"reward": {"function": "another"}}, folder / "__init__.py") == {}
    finally:
        sys.path.remove(str(tmp_path))


def test_an_older_run_does_not_know_them_and_ampos_own_edits_are_only_told_of(tmp_path: Path) -> None:
    def manifest(**code: object) -> dict[str, object]:
        return build_manifest(job="train", seed=0, plugins={"ampo-rl": "0.2.0"}, code=code)

    now = manifest(plugin_files={"a": {"a.py": "sha256 1"}}, own_code={"ampo_core": "sha256 2", "ampo_plugins": "x"})
    assert manifest_differences(manifest(), now) == []
    assert manifest_differences(manifest(plugin_files={}), now) == [("plugin_files.a", None, {"a.py": "sha256 1"})]
    (tmp_path / "config.yaml").write_text("job: train\n")
    write_json(tmp_path / "manifest.json", manifest(own_code={"ampo_core": "sha256 1", "ampo_plugins": "x"}))
    (note,) = of_older_release(tmp_path, now)
    assert note.endswith("the code of ampo_core has been edited since it began; what comes may differ for that")
    own = code_of(discover(), {})["own_code"]
    assert own.keys() <= {"ampo_core", "ampo_registry", "ampo_plugins"}
