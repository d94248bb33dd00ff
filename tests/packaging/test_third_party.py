"""A stranger's environment: AMPO and the example plugin as wheels, none of it from this checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "plugins" / "examples" / "ampo-nearest-length"
CONFIG = """\
job: train
model: {path: some/model}
data: {train: [questions.parquet]}
guidance: {selector: {type: nearest_length, ties: dataset}}
"""


@dataclass(frozen=True)
class Clean:
    """An environment with the two wheels, run from an empty folder."""

    python: Path
    folder: Path

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        unset = ("PYTHONPATH", "MYPYPATH", "VIRTUAL_ENV", "FORCE_COLOR")
        env = {name: value for name, value in os.environ.items() if name not in unset}
        env |= {"COLUMNS": "200", "HF_HUB_OFFLINE": "1"}
        command_line = [str(part) for part in command]
        return subprocess.run(command_line, cwd=self.folder, env=env, capture_output=True, text=True, check=False)

    def script(self, name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return self.run(self.python.parent / name, *arguments)


def _must(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    out = tmp_path_factory.mktemp("wheels")
    for project in (ROOT, EXAMPLE):
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(project)]
        _must(subprocess.run(build, capture_output=True, text=True, check=False))
    return sorted(out.glob("*.whl"))


@pytest.fixture(scope="module")
def clean(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Clean:
    """The wheels in a fresh environment; all that they depend on is borrowed from the one that runs the tests."""
    folder = tmp_path_factory.mktemp("clean")
    _must(
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", "env"], cwd=folder, capture_output=True, text=True
        )
    )
    python = folder / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet"]
    _must(subprocess.run([*pip, *map(str, wheels)], capture_output=True, text=True, check=False))
    own = next((folder / "env").glob("lib/python*/site-packages"))
    # A .pth file adds the folder itself and not the .pth files in it, so an editable AMPO there stays out.
    (own / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    work = folder / "work"
    work.mkdir()
    return Clean(python, work)


def test_wheels_hold_what_they_should(wheels: list[Path]) -> None:
    names = [set(zipfile.ZipFile(wheel).namelist()) for wheel in wheels]
    assert {"ampo_core/cli.py", "ampo_registry/catalog.py", "ampo_plugins/selectors/length.py"} <= names[0]
    assert {"ampo_core/py.typed", "ampo_registry/py.typed", "ampo_plugins/py.typed"} <= names[0]
    assert {"ampo_nearest_length/__init__.py", "ampo_nearest_length/py.typed"} <= names[1]
    assert not [name for name in names[0] | names[1] if name.startswith(("tests/", "plugins/", "registry/"))]


def test_modules_come_from_the_wheels(clean: Clean) -> None:
    modules = "ampo_core, ampo_registry, ampo_plugins, ampo_nearest_length"
    out = _must(clean.run(clean.python, "-c", f"import {modules}\nfor m in ({modules}): print(m.__file__)"))
    places = [Path(line) for line in out.splitlines()]
    assert len(places) == 4
    assert all(place.is_relative_to(clean.python.parents[1]) for place in places), places


def test_plugin_shows_in_the_listing(clean: Clean) -> None:
    out = _must(clean.script("ampo-run", "--plugins", "nearest_length"))
    assert "nearest_length" in out
    assert "ampo-nearest-length" in out
    assert "Prefer the teacher answer whose length is nearest" in out


def test_plugin_is_taken_by_a_config(clean: Clean) -> None:
    (clean.folder / "train.yaml").write_text(CONFIG)
    out = _must(clean.script("ampo-run", "train.yaml", "--check"))
    assert "type: nearest_length" in out
    refused = clean.script("ampo-run", "train.yaml", "guidance.selector=nearest_lenght", "--check")
    assert refused.returncode == 2
    assert "nearest_length" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_authors_own_test_passes(clean: Clean) -> None:
    test = EXAMPLE / "tests" / "test_nearest_length.py"
    out = _must(clean.run(clean.python, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", clean.folder, test))
    assert "1 passed" in out


def test_plugin_is_strictly_typed_for_mypy(clean: Clean) -> None:
    source = EXAMPLE / "ampo_nearest_length" / "__init__.py"
    _must(clean.run(sys.executable, "-m", "mypy", "--strict", "--python-executable", clean.python, source))


def test_type_checkers_see_a_wrong_signature(clean: Clean) -> None:
    """Else the two tests of typing could not fail: the base class would be Any to an outside author."""
    text = (EXAMPLE / "ampo_nearest_length" / "__init__.py").read_text()
    wrong = clean.folder / "wrong_plugin.py"
    wrong.write_text(text.replace("-> list[list[float]]", "-> list[str]"))
    mypy = clean.run(sys.executable, "-m", "mypy", "--strict", "--python-executable", clean.python, wrong)
    assert 'incompatible with return type "list[list[float]]" in supertype' in mypy.stdout
    pyright = clean.run(sys.executable, "-m", "pyright", "--pythonpath", clean.python, wrong)
    assert "reportIncompatibleMethodOverride" in pyright.stdout


def test_plugin_is_strictly_typed_for_pyright(clean: Clean) -> None:
    source = clean.folder / "ampo_nearest_length.py"
    source.write_text((EXAMPLE / "ampo_nearest_length" / "__init__.py").read_text())
    (clean.folder / "pyrightconfig.json").write_text(
        '{"typeCheckingMode": "strict", "include": ["ampo_nearest_length.py"]}'
    )
    out = _must(clean.run(sys.executable, "-m", "pyright", "--pythonpath", clean.python))
    assert "0 errors" in out
