"""docs/algorithm.md points into the code: every pointer must hold, and no option may be left out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from ampo_plugins import (
    advantages,
    aggregators,
    interventions,
    losses,
    schedules,
    selectors,
    shapings,
    teacher_pools,
    triggers,
)
from ampo_registry.specs import component_name
from pydantic import BaseModel

from ampo_core.config.objective import AuxiliaryConfig, KlConfig, ObjectiveConfig, OffPolicyConfig, OnPolicyConfig
from ampo_core.config.tree import GuidanceConfig

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "algorithm.md").read_text("utf-8")
POINTERS = sorted(set(re.findall(r"`((?:[\w/]+)\.py):([\w.]+)`", PAGE)))


def names(path: Path) -> set[str]:
    """Functions, classes and module variables of a file; of a class also methods and fields, with a dot."""
    found = set()

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(prefix + node.name)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(prefix + node.target.id)
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")

    visit(ast.parse(path.read_text("utf-8")).body, "")
    return found


@pytest.mark.parametrize(("file", "name"), POINTERS)
def test_pointer_holds(file: str, name: str) -> None:
    path = ROOT / file
    assert path.is_file(), f"docs/algorithm.md names {file}, which does not exist"
    assert name in names(path), f"docs/algorithm.md names {name}, which {file} does not define"


def test_every_code_path_on_the_page_is_a_pointer() -> None:
    """A path in another form would escape the test above."""
    bare = set(re.findall(r"[\w/]+\.py", PAGE)) - {file for file, _ in POINTERS}
    assert not bare
    assert len(POINTERS) >= 40


def test_every_equation_has_its_place() -> None:
    heads = " ".join(re.findall(r"^## (.*)$", PAGE, re.MULTILINE))
    assert {int(number) for number in re.findall(r"\d", " ".join(re.findall(r"\((Eq[^)]*)\)", heads)))} == set(
        range(1, 9)
    )


BLOCKS = (GuidanceConfig, ObjectiveConfig, OnPolicyConfig, OffPolicyConfig, AuxiliaryConfig, KlConfig)
FOLDERS = [advantages, aggregators, interventions, losses, schedules, selectors, shapings, teacher_pools, triggers]


@pytest.mark.parametrize("block", BLOCKS)
def test_every_option_of_the_objective_is_explained(block: type[BaseModel]) -> None:
    missing = [name for name in block.model_fields if not re.search(rf"\b{name}\b", PAGE)]
    assert not missing


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_built_in_and_its_options_are_explained(folder: object) -> None:
    for spec in folder.ampo_specs():  # type: ignore[attr-defined]
        assert f"`{component_name(spec)}`" in PAGE
        for option in spec.model_fields:
            assert re.search(rf"\b{option}\b", PAGE), f"{component_name(spec)}.{option}"
