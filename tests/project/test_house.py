"""The rules of the house that no linter knows: sizes, pinned versions, what CI and make call."""

from __future__ import annotations

import ast
import multiprocessing
import os
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import LONGEST

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SOURCES = [
    path
    for folder in ("ampo_core", "registry", "plugins", "benchmarks", "docs")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "build" not in path.parts
]
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
)


def test_files_stay_under_300_lines():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in SOURCES}
    assert len(lengths) > 50
    assert {path: length for path, length in lengths.items() if length > 300} == {}


def test_functions_stay_under_50_lines():
    found = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
                found[f"{path.relative_to(ROOT)}:{node.name}"] = node.end_lineno - node.lineno + 1
    assert {name: length for name, length in found.items() if length > 50} == {}


def imports() -> dict[str, set[str]]:
    """Which files of the three packages each of them imports, by module; in functions and under TYPE_CHECKING too."""
    modules = {}
    for folder in ("ampo_core", "registry/ampo_registry", "plugins/ampo_plugins"):
        for path in (ROOT / folder).rglob("*.py"):
            name = path.relative_to((ROOT / folder).parent).with_suffix("")
            modules[".".join(name.parts).removesuffix(".__init__")] = path
    found: dict[str, set[str]] = {module: set() for module in modules}
    for module, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found[module] |= modules.keys() & {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}:{node.lineno} is a relative import"
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                whole = {str(node.module)} if names - modules.keys() else set()
                found[module] |= modules.keys() & (names | whole)
    return found


def test_no_files_import_each_other():
    """Neither two of them nor a longer circle: CycleError lists it."""
    graph = imports()
    assert len(graph) > 200
    assert sum(map(len, graph.values())) > 500
    TopologicalSorter(graph).prepare()


def test_no_unfinished_business():
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    assert [str(path) for path in SOURCES if marks.search(path.read_text("utf-8"))] == []


def test_no_package_of_another_project_lies_here():
    assert [path.name for path in ROOT.glob("*.whl")] == []
    assert "*.whl" in (ROOT / ".gitignore").read_text().split()


def test_every_room_says_what_it_is_for():
    rooms = sorted({path.parent for path in (ROOT / "ampo_core").rglob("*.py")})
    starts = {room.relative_to(ROOT).as_posix(): room / "__init__.py" for room in rooms}
    said = {name: ast.get_docstring(ast.parse(start.read_text("utf-8"))) or "" for name, start in starts.items()}
    assert len(said) > 12
    assert [name for name, text in said.items() if len(text) < 60] == []


def test_contributing_lists_the_rooms_in_the_order_of_their_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    listed = re.findall(r"^  ([a-z]+)(?:/|\.py) ", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE)
    assert listed == [room for layer in layers for room in layer.split(" | ")]


def test_constraints_pin_every_dependency_to_an_allowed_version():
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    pins = {canonicalize_name(name): version for name, version in PINS.items()}
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"constraints.txt does not pin {requirement.name}"
        assert pins[name] in requirement.specifier, f"{name} {pins[name]} is not {requirement.specifier}"


def test_constraints_do_not_name_the_project_or_a_build():
    assert PROJECT["name"] not in PINS
    assert PINS["torch"] == "2.13.0"
    assert [version for version in PINS.values() if "+" in version] == []


def test_what_texts_say_to_install_are_extras_of_this_distribution():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    texts = "".join(path.read_text("utf-8") for path in [*SOURCES, *pages])
    named = set(re.findall(r"install '([\w-]+)\[([\w,]+)\]'", texts))
    assert {extra for _, extra in named} >= {"vllm", "endpoint", "tracking"}
    assert {name for name, _ in named} == {PROJECT["name"]}
    assert {extra for _, extra in named} <= PROJECT["optional-dependencies"].keys()


def test_ci_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert [line for line in script.read_text().splitlines() if "make" in line] == ["exec make test"]


def make(*arguments: str) -> str:
    done = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


CHECKS = ("/ruff format --check", "/ruff check", "/mypy", "/pyright", "/lint-imports")


@pytest.mark.process
@pytest.mark.parametrize(
    ("target", "checks", "chosen"),
    [
        ("test", True, None),
        ("test-quick", False, "not process and not slow and not gpu and not misbehaving"),
        ("test-slow", False, "slow"),
        ("test-all", True, "not gpu"),
    ],
)
def test_make_runs_the_checks_and_the_tests_that_a_target_names(tmp_path, target, checks, chosen):
    shown = make(target, f"VENV={tmp_path / 'v'}")
    assert "HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1" in shown
    order = [shown.index("-m venv"), shown.index(" install "), shown.index("-m pytest")]
    assert order == sorted(order)
    for check in CHECKS:
        assert (check in shown) == checks
        assert shown.find(check) < order[2]
    found = re.search("-m pytest -n 2(?: -m '?([^'\n]*))?", shown)
    assert found is not None
    assert found[1] == chosen
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["addopts"]
    assert "-m 'not slow and not gpu and not misbehaving'" in options


def test_a_test_that_starts_a_process_says_so():
    with pytest.raises(
        pytest.fail.Exception, match=r"starts a process \(\['true'\]\): mark it with pytest.mark.process"
    ):
        subprocess.run(["true"])
    with pytest.raises(pytest.fail.Exception, match=r"starts a process \(SpawnProcess\)"):
        multiprocessing.get_context("spawn").Process().start()


@pytest.mark.process
def test_make_takes_a_further_index_only_when_told(tmp_path):
    assert "--extra-index-url" not in make("check", f"VENV={tmp_path / 'v'}")
    assert "--extra-index-url URL" in make("check", f"VENV={tmp_path / 'v'}", "EXTRA_INDEX=URL")


@pytest.mark.process
def test_a_second_make_installs_nothing(tmp_path):
    venv = tmp_path / "v"
    (venv / "bin").mkdir(parents=True)
    for name in ("bin/python", ".installed", ".installed-dev"):
        venv.joinpath(name).touch()
    assert " install " not in make("check", f"VENV={venv}")


@pytest.mark.process
def test_make_quickstart_runs_the_quickstart(tmp_path):
    shown = make("quickstart", f"VENV={tmp_path / 'v'}")
    assert "[dev]" not in shown
    assert "ampo-run configs/quickstart.yaml" in shown


@pytest.mark.process
def test_pre_commit_hooks_are_local_and_call_what_check_calls():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    checks = make("check")
    for hook in config["repos"][0]["hooks"]:
        assert Path(hook["entry"].split()[0]).name in checks


@pytest.mark.process
@pytest.mark.parametrize(
    "module", ["ampo_registry", "ampo_core.cli.main", "ampo_core.run.folder", "ampo_core.run.manifest"]
)
def test_importing_it_brings_in_no_torch(module):
    code = (
        f"import sys, {module}; print([name for name in ('torch', 'transformers', 'deepspeed') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_licence_is_apache():
    assert PROJECT["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text


def test_the_files_that_come_first_are_there():
    assert [place for place in LONGEST if not list((ROOT / "tests").glob(f"{place}*"))] == []
