"""What comes from outside runs no code here: the places that could run any are few, and listed."""

from __future__ import annotations

import ast
import json
from pathlib import Path

from ampo_registry.discovery import discover

from ampo_core.config.schema import config_schema

ROOT = Path(__file__).parents[2]
PACKAGES = ("ampo_core", "registry/ampo_registry", "plugins/ampo_plugins")
RUNS_CODE = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "pickle.load",
    "pickle.loads",
    "torch.load",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "marshal.loads",
    "os.system",
    "os.popen",
    "self._engine.load_checkpoint",
}
"""Calls that may run what they are given."""
KNOWN = {
    # the parent's own bytes, in the worker that it has just started
    ("ampo_core/grading/worker.py", "pickle.loads"),
    ("ampo_core/grading/rows.py", "pickle.loads"),
    # what another rank of the same run has sent
    ("ampo_core/distributed/ranks.py", "pickle.loads"),
    # the conformance kit, of the spec that it was given
    ("registry/ampo_registry/testing/rewards.py", "pickle.loads"),
    # random number generators, with weights_only
    ("ampo_core/learner/checkpoint.py", "torch.load"),
    # DeepSpeed's pickles, of a checkpoint of the run's own folder
    ("ampo_core/learner/learner.py", "self._engine.load_checkpoint"),
}


def calls() -> list[tuple[str, ast.Call]]:
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [
        (path.relative_to(ROOT).as_posix(), node)
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]


def test_what_could_run_code_is_called_in_few_places():
    found = {(file, ast.unparse(call.func)) for file, call in calls() if ast.unparse(call.func) in RUNS_CODE}
    assert found == KNOWN


def test_torch_loads_weights_only():
    loads = [call for _, call in calls() if ast.unparse(call.func) == "torch.load"]
    options = [{option.arg: ast.unparse(option.value) for option in call.keywords} for call in loads]
    assert options
    assert all(option.get("weights_only") == "True" for option in options)


def test_no_shell_is_started():
    assert not [file for file, call in calls() for option in call.keywords if option.arg == "shell"]


def test_code_of_a_model_is_allowed_by_the_command_line_alone():
    """No job and no component has a key for it, and no call says True by itself."""
    assert "remote_code" not in json.dumps(config_schema(discover().catalog))
    said = {
        ast.unparse(option.value) for _, call in calls() for option in call.keywords if "remote" in (option.arg or "")
    }
    assert said
    assert not {"True", "1"} & said


def test_the_page_names_each_place():
    text = ROOT.joinpath("docs/supply.md").read_text(encoding="utf-8")
    assert all(file in text for file, _ in KNOWN)
