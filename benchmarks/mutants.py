"""Do the tests notice? Changes the algorithm's files one small thing at a time and runs the tests that cover them.

    make mutants                                        # all targets, two at a time; tens of minutes
    python benchmarks/mutants.py objective schedule     # some of them

A mutant is one comparison, operator, number, truth value, condition or statement changed. It is killed if a test fails
or hangs. Survivors that compute the same are listed in mutants_equal.yaml with the reason; any other is a gap in the
tests, and the command ends with exit code 1 if fewer than 95 % of the rest of a file's mutants are killed.

Each mutant runs in a fork of this process, which has the large libraries behind it, so that it costs its tests alone.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
EQUAL = Path(__file__).with_name("mutants_equal.yaml")
WANTED = 0.95
POLL_S = 0.02
LOOP, LEARNER, PLUGINS = "ampo_core/loop", "ampo_core/learner", "plugins/ampo_plugins"
P_TESTS = "tests/plugins"


def _in(folder: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}.py" for name in names)


TARGETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "objective": (
        _in(LOOP, "objective", "minibatch_loss"),
        _in("tests/loop", "test_objective", "test_golden_objective", "test_segments", "test_terms"),
    ),
    "old_policy": (_in(LOOP, "old_policy"), _in("tests/loop", "test_old_policy", "test_sequences")),
    "guidance": (
        (*_in(LOOP, "guidance", "groups", "intervened", "scoring"), "registry/ampo_registry/samples.py"),
        _in("tests/loop", "test_guidance", "test_intervened", "test_scoring", "test_sequences"),
    ),
    "credit": (_in(LOOP, "credit"), _in("tests/loop", "test_credit")),
    "sequences": (_in(LOOP, "sequences"), _in("tests/loop", "test_sequences", "test_segments", "test_terms")),
    "packing": (_in(LEARNER, "packing"), _in("tests/learner", "test_packing")),
    "balance": (("ampo_core/distributed/ranks.py::balance",), _in("tests/distributed", "test_sharing")),
    "schedule": (_in(LEARNER, "schedule"), _in("tests/learner", "test_schedule")),
    "losses": (
        _in(f"{PLUGINS}/losses", "cispo", "clip", "gspo", "nll", "policy_gradient", "shaped"),
        ("tests/plugins/test_losses.py", "tests/loop/test_golden_objective.py"),
    ),
    "interventions": (
        _in(f"{PLUGINS}/interventions", "hint", "keep", "prefix", "replace"),
        ("tests/plugins/test_interventions.py", "tests/loop/test_guidance.py"),
    ),
    "aggregators": (_in(f"{PLUGINS}/aggregators", "constant", "seq", "token"), _in(P_TESTS, "test_aggregators")),
    "shapings": (
        _in(f"{PLUGINS}/shapings", "log_prob", "p_plus_log_prob", "power", "ratio"),
        _in(P_TESTS, "test_shapings"),
    ),
    "advantages": (
        _in(f"{PLUGINS}/advantages", "group", "group_normalized", "mean_only", "on_policy_baseline"),
        _in(P_TESTS, "test_advantages"),
    ),
    "selectors": (
        (*_in(f"{PLUGINS}/selectors", "comprehension", "length", "random"), "registry/ampo_registry/selectors.py"),
        _in(P_TESTS, "test_selectors"),
    ),
    "triggers": (_in(f"{PLUGINS}/triggers", "adaptive", "always"), _in(P_TESTS, "test_triggers")),
    "pass_at_k": (_in("ampo_core/evaluation", "statistics"), _in("tests/evaluation", "test_statistics")),
}
"""name -> (files that are changed, or FILE::FUNCTION, tests that must notice)."""

COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "minimum": "maximum", "maximum": "minimum"}
UNCHANGED_KEYWORDS = {"strict", "description", "title"}


@dataclass(frozen=True)
class Mutant:
    """One change, in the line `text`: `code` is the module's syntax tree with it."""

    file: str
    line: int
    text: str
    before: str
    after: str
    code: ast.Module


def mutants(target: str) -> Iterator[Mutant]:
    """All mutants of FILE or FILE::FUNCTION, from its top to its end."""
    file, _, function = target.partition("::")
    source = ROOT.joinpath(file).read_text(encoding="utf-8")
    tree, lines = ast.parse(source), source.splitlines()
    order = {id(node): number for number, node in enumerate(ast.walk(tree))}
    found = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == function] if function else [tree]
    for node in (node for part in found for node in _changeable(part)):
        for choice in range(len(_changes(node))):
            code = copy.deepcopy(tree)
            twin = list(ast.walk(code))[order[id(node)]]
            before = ast.unparse(node)
            _changes(twin)[choice]()
            text = lines[node.lineno - 1].strip()
            yield Mutant(file, node.lineno, text, before, ast.unparse(twin), ast.fix_missing_locations(code))


def _changeable(node: ast.AST) -> Iterator[Any]:
    """Nodes below `node` that decide what is computed: no annotations, decorators, docstrings or words of errors."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params") or isinstance(node, ast.Raise):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or (isinstance(child, ast.keyword) and child.arg in UNCHANGED_KEYWORDS):
                continue
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if _changes(child):
                yield child
            yield from _changeable(child)


def _changes(node: Any) -> list[Any]:
    """What can be done to `node`, each as a call that does it in place."""
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in COMPARE:
            return [lambda: node.ops.__setitem__(0, COMPARE[type(operator)]())]
        case ast.BinOp() | ast.AugAssign() if type(node.op) in ARITHMETIC:
            return [lambda: setattr(node, "op", ARITHMETIC[type(node.op)]())]
        case ast.BoolOp():
            return [lambda: setattr(node, "op", ast.Or() if isinstance(node.op, ast.And) else ast.And())]
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            if isinstance(node.op, ast.USub):
                return [lambda: setattr(node, "op", ast.UAdd())]
            return [lambda: setattr(node, "operand", ast.UnaryOp(ast.Not(), node.operand))]
        case ast.Constant(value=bool()):
            return [lambda: setattr(node, "value", not node.value)]
        case ast.Constant(value=int() | float()):
            return [lambda: setattr(node, "value", node.value + 1)]
        case ast.If() | ast.IfExp() | ast.While() if not isinstance(node.test, ast.Compare | ast.BoolOp | ast.UnaryOp):
            return [lambda: setattr(node, "test", ast.UnaryOp(ast.Not(), node.test))]
        case ast.Name() if node.id in NAMES and isinstance(node.ctx, ast.Load):
            return [lambda: setattr(node, "id", NAMES[node.id])]
        case ast.Attribute() if node.attr in NAMES:
            return [lambda: setattr(node, "attr", NAMES[node.attr])]
        case ast.Expr(value=ast.Call()):
            return [lambda: setattr(node, "value", ast.Constant(None))]
    return []


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports `mutant` in the place of its file."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant
        self._module = (
            mutant.file.removesuffix(".py").replace("/", ".").removeprefix("plugins.").removeprefix("registry.")
        )

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return importlib.util.spec_from_loader(name, self) if name == self._module else None

    def exec_module(self, module: Any) -> None:
        module.__file__ = str(ROOT / self._mutant.file)
        exec(compile(self._mutant.code, module.__file__, "exec"), module.__dict__)  # noqa: S102 - our own source


def start(tests: Sequence[str], mutant: Mutant | None) -> int:
    """Fork a process that runs `tests` on `mutant` (None: on what is there) and exits with pytest's code; its pid."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    if mutant is not None:
        sys.meta_path.insert(0, Changed(mutant))
    import pytest

    code = 1
    try:
        code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]))
    finally:
        os._exit(code)


def run(tests: Sequence[str], changed: Sequence[Mutant], seconds: float, workers: int) -> list[Mutant]:
    """The mutants that `tests` let live; a run of more than `seconds` counts as noticed."""
    waiting, running, alive = list(changed), dict[int, tuple[Mutant, float]](), []
    while waiting or running:
        while waiting and len(running) < workers:
            mutant = waiting.pop(0)
            running[start(tests, mutant)] = (mutant, time.monotonic() + seconds)
        for pid, (mutant, deadline) in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del running[pid]
                if os.waitstatus_to_exitcode(status) == 0:
                    alive.append(mutant)
            elif time.monotonic() > deadline:
                os.killpg(pid, signal.SIGKILL)
        time.sleep(POLL_S)
    return alive


def baseline(tests: Sequence[str]) -> float:
    """Seconds that `tests` take on the unchanged files. Ends the command if they fail."""
    began = time.monotonic()
    _, status = os.waitpid(start(tests, None), 0)
    if status:
        sys.exit(f"{' '.join(tests)} fail without any change: exit code {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - began


def known_equal() -> dict[tuple[str, str, str, str], str]:
    """(file, line, before, after) -> why this mutant computes the same."""
    entries = yaml.safe_load(EQUAL.read_text(encoding="utf-8")) or []
    return {(entry["file"], entry["line"], entry["before"], entry["after"]): entry["why"] for entry in entries}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; none = all")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    unknown = [name for name in options.targets if name not in TARGETS]
    if unknown:
        parser.error(f"no target is called {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    os.chdir(ROOT)
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    sys.path.insert(0, str(ROOT))
    _import_large()
    equal, console, failed = known_equal(), Console(), False
    table = Table("file", "mutants", "equal", "killed", "share", "seconds")
    for name in options.targets or TARGETS:
        files, tests = TARGETS[name]
        seconds = baseline(tests)
        for file in files:
            began, changed = time.monotonic(), list(mutants(file))
            alive = run(tests, changed, 10 * seconds + 20, options.workers)
            same = [m for m in alive if (m.file, m.text, m.before, m.after) in equal]
            gaps = [m for m in alive if m not in same]
            judged = len(changed) - len(same)
            share = (judged - len(gaps)) / judged if judged else 1.0
            failed |= share < WANTED
            took = f"{time.monotonic() - began:.0f}"
            table.add_row(file, str(len(changed)), str(len(same)), str(judged - len(gaps)), f"{share:.1%}", took)
            for gap in gaps:
                console.print(f"lives: {gap.file}:{gap.line}: {gap.before}  ->  {gap.after}", markup=False)
    console.print(table)
    return int(failed)


def _import_large() -> None:
    """What the tests import beside the project's own modules."""
    import hypothesis  # noqa: F401
    import numpy  # noqa: F401
    import pydantic  # noqa: F401
    import pytest  # noqa: F401
    import torch
    import transformers  # noqa: F401

    torch.set_num_threads(1)


if __name__ == "__main__":
    sys.exit(main())
