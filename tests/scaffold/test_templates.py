"""Every template keeps its contract, and trains in the quickstart's own configs with the lines that its README says."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ampo_registry.checks import KINDS
from ampo_registry.specs import ComponentSpec

from ampo_core.scaffold.write import FREE_FORMS, kinds, plugin_files
from ampo_core.testing import run_steps, tiny_world
from tests.scaffold.conftest import FOLDER, Load

ROOT = Path(__file__).parents[2]
TOGETHER = tuple(kind for kind in kinds() if kind not in ("judge", "credit", "late_teacher_pool", "task"))


def test_there_is_one_for_every_kind() -> None:
    assert set(kinds()) == {*KINDS, *FREE_FORMS, "observer"}
    assert set(FREE_FORMS.values()) <= KINDS.keys()


@pytest.mark.parametrize("kind", kinds())
def test_a_template_is_what_is_written_but_for_the_name(kind: str) -> None:
    files = plugin_files(kind, f"my_{kind}")
    assert files[f"ampo_my_{kind}/__init__.py"] == (FOLDER / f"ampo_my_{kind}.py").read_text("utf-8")
    assert files[f"tests/test_my_{kind}.py"] == (FOLDER / f"test_my_{kind}.py").read_text("utf-8")
    assert (FOLDER / f"my_{kind}.yaml").read_text("utf-8") in files["README.md"]


@pytest.mark.parametrize("kind", kinds())
def test_it_keeps_the_contract(kind: str, load: Load, tmp_path: Path) -> None:
    tests = vars(load(f"test_my_{kind}"))
    quick = [
        test for name, test in tests.items() if name.startswith("test_") and "run_steps" not in test.__code__.co_names
    ]
    assert quick
    for test in quick:
        test(*[tmp_path for _ in inspect.signature(test).parameters])


def plugin(module: ModuleType) -> type[ComponentSpec] | ModuleType:
    """What `run_steps` takes: the spec, or the module of an observer."""
    return module.ampo_specs()[0] if hasattr(module, "ampo_specs") else module


def said(kind: str) -> list[str]:
    """The settings of the command that the README says."""
    (command,) = re.findall(r"^ampo-run configs.*$", plugin_files(kind, f"my_{kind}")["README.md"], re.M)
    _, config, *settings, check = shlex.split(command)
    assert (ROOT / config).is_file()
    assert check == "--check"
    return [setting.replace("${stages.warmup.out}", str(tiny_world().model)) for setting in settings]


@pytest.mark.process
@pytest.mark.parametrize(
    "together", [TOGETHER, ("judge", "late_teacher_pool", "task"), ("credit",)], ids=["most", "judge", "credit"]
)
def test_they_train_in_the_quickstart(together: tuple[str, ...], load: Load) -> None:
    """Several at a time: each in its own place, and all named in the config of the run."""
    plugins = [plugin(load(f"ampo_my_{kind}")) for kind in together]
    settings = {kind: said(kind) for kind in together}
    task: Any = None
    if "task" in settings:
        (setting,) = settings.pop("task")
        task = yaml.safe_load(setting.removeprefix("task="))
    overrides = [setting for found in settings.values() for setting in found]
    config = ROOT / "configs/quickstart/ampo.yaml"
    done = run_steps(config, plugins=plugins, overrides=overrides, task=task)
    assert [line["step"] for line in done.metrics] == [1, 2]
    assert all(line["policy/grad_norm"] > 0 for line in done.metrics)
    assert done.faults == ()
    resolved = (done.folder / "config.yaml").read_text("utf-8")
    assert [kind for kind in settings if f"my_{kind}" not in resolved and kind != "observer"] == []
    if "observer" in together:
        assert "my_observer/distinct" in done.metrics[0]
