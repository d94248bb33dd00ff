"""`ampo-run --new-plugin KIND NAME`: what is written, under which names, and what is refused."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from ampo_registry import ConfigError
from ampo_registry.catalog import Catalog
from ampo_registry.discovery import discover
from ampo_registry.requirements import own_version

from ampo_core.cli.main import main
from ampo_core.scaffold.write import kinds, plugin_files, write_plugin

# `none` is no class name, `selection_context` and `tracker` are names that the templates import, `list` is a built-in
ODD = ("none", "selection_context", "tracker", "list", "a_1__b")


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("kind", kinds())
def test_whatever_the_name_the_files_are_whole(kind: str, name: str) -> None:
    files = plugin_files(kind, name)
    code = ast.parse(files[f"ampo_{name}/__init__.py"])
    ast.parse(files[f"tests/test_{name}.py"])
    own = {node.name for node in code.body if isinstance(node, ast.ClassDef)}
    imported = {a.name for node in ast.walk(code) if isinstance(node, ast.ImportFrom) for a in node.names}
    assert not own & imported
    assert f'Literal["{name}"] = "{name}"' in files[f"ampo_{name}/__init__.py"] or kind == "observer"
    text = "".join(files.values())
    assert not re.search(rf"my_{kind}|\$[A-Z]", text)
    project = tomllib.loads(files["pyproject.toml"])["project"]
    assert project["entry-points"] == {"ampo": {name: f"ampo_{name}"}}
    assert project["dependencies"] == [f"ampo-rl>={'.'.join(own_version().split('.')[:2])}"]


@pytest.mark.process
def test_what_is_written_is_formatted_and_sorted_whatever_the_name(tmp_path: Path) -> None:
    for name in ("x1", "a_name_of_twenty_four_abc"):
        for kind in kinds():
            for path, text in plugin_files(kind, name).items():
                file = tmp_path / name / kind / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
    for check in (("format", "--check"), ("check", "--no-cache")):
        command = [sys.executable, "-m", "ruff", *check, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_the_command_writes_a_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--new-plugin", "selector", "near_enough"]) == 0
    assert "pip install -e 'ampo-near-enough[test]'" in capsys.readouterr().out
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert found == [
        "ampo-near-enough/README.md",
        "ampo-near-enough/ampo_near_enough/__init__.py",
        "ampo-near-enough/ampo_near_enough/py.typed",
        "ampo-near-enough/pyproject.toml",
        "ampo-near-enough/tests/test_near_enough.py",
    ]
    readme = tmp_path / "ampo-near-enough/README.md"
    readme.write_text("mine")
    assert main(["--new-plugin", "selector", "near_enough"]) == 2
    assert "ampo-near-enough is there already; nothing was written" in capsys.readouterr().err
    assert readme.read_text() == "mine"
    assert main(["base.yaml", "--new-plugin", "selector", "other"]) == 2
    assert "no config, found 'base.yaml' beside them" in capsys.readouterr().err
    assert not (tmp_path / "ampo-other").exists()


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("selecter", "mine", r"no kind 'selecter'; did you mean selector\?\nallowed: advantage, aggregator, credit"),
        ("selector", "My-Own", r"lower case letters, digits and _, found 'My-Own'; my_own would do"),
        ("selector", "mine_", r"lower case letters, digits and _, found 'mine_'; mine would do"),
        ("selector", "length", r"ampo-rl \S+ has selector length already"),
        ("credit", "distill", r"ampo-rl \S+ has advantage distill already"),
        ("loss", "core", r"ampo-core, or a module ampo_core, is installed already"),
        ("loss", "rl", r"ampo-rl, or a module ampo_rl, is installed already"),
        ("observer", "policy", r"metrics could not be named after 'policy': "),
    ],
)
def test_what_could_not_work_is_refused_before_anything_is_written(
    kind: str, name: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        write_plugin(kind, name, discover().catalog, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be made: No such file or directory"):
        write_plugin("loss", "mine", Catalog(), tmp_path / "nowhere")
