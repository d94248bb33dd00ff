"""A stranger's environment: AMPO and the example plugins as wheels, none of it from this checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from ampo_core.scaffold.write import kinds

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path.parent for path in (ROOT / "plugins" / "examples").glob("*/pyproject.toml"))
PACKAGES = {path.name.replace("-", "_"): path for path in EXAMPLES}
EXAMPLE = PACKAGES["ampo_nearest_length"]
CONFIG = """\
job: train
model: {path: some/model}
data: {train: [questions.parquet]}
guidance: {selector: {type: nearest_length, ties: dataset}}
"""

PREPARE = """\
job: prepare
run: {name: prepare}
task:
  type: labelled_arithmetic
  questions: 16
  levels: {2: 1.0}
  heldout_levels: [2]
  heldout_per_level: 2
  warmup_examples: 8
  missing: 0.0
reward: {type: math_verify, workers: 1}
"""
TRAIN = """\
job: train
run: {name: train}
model: {path: "${stages.prepare.out}/model", dtype: float32, gradient_checkpointing: false}
data: {train: ["${stages.prepare.out}/train.parquet"], max_prompt_tokens: 64}
rollout: {type: transformers, group_size: 4, max_response_tokens: 96}
reward: {type: math_verify, workers: 1}
guidance: {trigger: always, selector: nearest_length, replacements: 1}
training: {steps: 1, questions_per_batch: 4, questions_per_minibatch: 4, tokens_per_microbatch: 1024}
deepspeed: {zero_stage: 0}
checkpoint: {every: null}
resources: {threads: 1}
tracking: []
"""
PIPELINE = """\
job: pipeline
run: {name: pipeline}
stages: [{name: prepare, config: prepare.yaml}, {name: train, config: run.yaml}]
"""


@dataclass(frozen=True)
class Clean:
    """An environment with the wheels, run from an empty folder."""

    python: Path
    folder: Path

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        unset = ("PYTHONPATH", "MYPYPATH", "VIRTUAL_ENV", "FORCE_COLOR")
        env = {name: value for name, value in os.environ.items() if name not in unset}
        env |= {"COLUMNS": "200", "HF_HUB_OFFLINE": "1"}
        command_line = [str(part) for part in command]
        return subprocess.run(command_line, cwd=self.folder, env=env, capture_output=True, text=True, check=False)

    def mypy(self, config: Path, *sources: Path) -> subprocess.CompletedProcess[str]:
        options = ("--config-file", config, "--python-executable", self.python)
        return self.run(sys.executable, "-m", "mypy", *options, *sources)

    def script(self, name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return self.run(self.python.parent / name, *arguments)


def _must(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    out = tmp_path_factory.mktemp("wheels")
    for project in (ROOT, *EXAMPLES):
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(project)]
        _must(subprocess.run(build, capture_output=True, text=True, check=False))
    return [next(out.glob(f"{name}-*.whl")) for name in ("ampo_rl", *PACKAGES)]


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
    assert {"ampo_core/cli/main.py", "ampo_registry/catalog.py", "ampo_plugins/selectors/length.py"} <= names[0]
    assert {"ampo_core/py.typed", "ampo_registry/py.typed", "ampo_plugins/py.typed"} <= names[0]
    for package, held in zip(PACKAGES, names[1:], strict=True):
        assert {f"{package}/__init__.py", f"{package}/py.typed"} <= held
    assert not [name for name in set().union(*names) if name.startswith(("tests/", "plugins/", "registry/"))]


def test_modules_come_from_the_wheels(clean: Clean) -> None:
    modules = ", ".join(["ampo_core", "ampo_registry", "ampo_plugins", *PACKAGES])
    out = _must(clean.run(clean.python, "-c", f"import {modules}\nfor m in ({modules}): print(m.__file__)"))
    places = [Path(line) for line in out.splitlines()]
    assert len(places) == 3 + len(PACKAGES)
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


def test_authors_own_tests_pass(clean: Clean) -> None:
    tests = [path / "tests" for path in EXAMPLES]
    _must(clean.run(clean.python, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", clean.folder, *tests))


@pytest.mark.parametrize("torch", ["skip", pytest.param("normal", marks=pytest.mark.slow)])
def test_plugins_are_strictly_typed_for_mypy(clean: Clean, torch: str) -> None:
    """Mypy goes through torch for most of its time; Pyright, which is quick, always does."""
    config = clean.folder / f"torch_{torch}.ini"
    config.write_text(f"[mypy]\nstrict = True\n[mypy-torch.*]\nfollow_imports = {torch}\n")
    sources = [path / package / "__init__.py" for package, path in PACKAGES.items()]
    _must(clean.mypy(config, *sources))


def test_type_checkers_see_a_wrong_signature(clean: Clean) -> None:
    """Else the two tests of typing could not fail: the base class would be Any to an outside author."""
    text = (EXAMPLE / "ampo_nearest_length" / "__init__.py").read_text()
    wrong = clean.folder / "wrong_plugin.py"
    wrong.write_text(text.replace("-> list[list[float]]", "-> list[str]"))
    config = clean.folder / "strict.ini"
    config.write_text("[mypy]\nstrict = True\n[mypy-torch.*]\nfollow_imports = skip\n")
    mypy = clean.mypy(config, wrong)
    assert 'incompatible with return type "list[list[float]]" in supertype' in mypy.stdout
    pyright = clean.run(sys.executable, "-m", "pyright", "--pythonpath", clean.python, wrong)
    assert "reportIncompatibleMethodOverride" in pyright.stdout


def test_plugins_are_strictly_typed_for_pyright(clean: Clean) -> None:
    for package, path in PACKAGES.items():
        (clean.folder / f"{package}.py").write_text((path / package / "__init__.py").read_text())
    included = json.dumps([f"{package}.py" for package in PACKAGES])
    (clean.folder / "pyrightconfig.json").write_text(f'{{"typeCheckingMode": "strict", "include": {included}}}')
    out = _must(clean.run(sys.executable, "-m", "pyright", "--pythonpath", clean.python))
    assert "0 errors" in out


def test_plugin_chooses_in_a_real_training_step(clean: Clean) -> None:
    for name, text in {"prepare.yaml": PREPARE, "run.yaml": TRAIN, "pipeline.yaml": PIPELINE}.items():
        (clean.folder / name).write_text(text)
    _must(clean.script("ampo-run", "pipeline.yaml"))
    [metrics] = [path for path in clean.folder.rglob("metrics.jsonl") if "train" in str(path)]
    step = json.loads(metrics.read_text().splitlines()[-1])
    assert step["step"] == 1
    assert step["guidance/replaced"] > 0.0
    # The plugin's scores are distances with a minus sign; those of the built-in selectors never are below 0.
    assert step["guidance/score_mean"] < 0.0
    [manifest] = [path for path in clean.folder.rglob("manifest.json") if path.parent == metrics.parent]
    assert "ampo-nearest-length" in manifest.read_text()


def test_configs_of_the_plugins_are_valid(clean: Clean) -> None:
    for config in sorted(path for example in EXAMPLES for path in example.glob("*.yaml")):
        _must(clean.script("ampo-run", config, "--check"))


def new_plugin(clean: Clean, kind: str) -> Path:
    """A plugin of that kind as `ampo-run` writes it, installed where it lies, without a network."""
    _must(clean.script("ampo-run", "--new-plugin", kind, f"fresh_{kind}"))
    folder = clean.folder / f"ampo-fresh-{kind.replace('_', '-')}"
    pip = [sys.executable, "-m", "pip", "--python", clean.python, "install", "--no-index", "--no-deps", "--quiet"]
    _must(clean.run(*pip, "--no-build-isolation", "-e", folder))
    assert f"fresh_{kind}" in _must(clean.script("ampo-run", "--plugins", f"fresh_{kind}"))
    return folder


def test_a_new_plugin_installs_and_keeps_its_contract(clean: Clean) -> None:
    folder = new_plugin(clean, "schedule")
    out = _must(clean.run(clean.python, "-m", "pytest", "-p", "no:cacheprovider", folder, "-k", "not run"))
    assert "2 passed" in out


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds())
def test_a_new_plugin_of_every_kind_passes_its_tests_and_checks(clean: Clean, kind: str) -> None:
    folder = new_plugin(clean, kind)
    _must(clean.run(clean.python, "-m", "pytest", "-p", "no:cacheprovider", folder))
    for check in (("format", "--check"), ("check", "--no-cache")):
        _must(clean.run(sys.executable, "-m", "ruff", *check, folder))
    pyright = clean.run(sys.executable, "-m", "pyright", "--pythonpath", clean.python, "--project", folder)
    assert "0 errors" in _must(pyright)


@pytest.mark.slow
def test_registry_is_strictly_typed_for_pyright() -> None:
    """What outside authors see; `make check` says the same of the whole project."""
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    assert "0 errors" in _must(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False))
