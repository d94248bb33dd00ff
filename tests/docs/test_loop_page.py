"""docs/loop.md keeps in step with the loop: its pointers hold, and its metrics are those that the code names."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import runpy
from pathlib import Path

import pytest
from ampo_registry.checks import KINDS

from ampo_core import train

ROOT = Path(__file__).parents[2]
PAGE = ROOT.joinpath("docs/loop.md").read_text(encoding="utf-8")
SOURCES = {path: path.read_text(encoding="utf-8") for path in ROOT.joinpath("ampo_core").rglob("*.py")}
FAMILIES = "reward|guidance|groups|response|policy|verifier|tokens|time|eval"
POINTERS = re.findall(r"`([\w/]+)\.py:([\w.]+)`", PAGE)


def documented() -> set[str]:
    return set(re.findall(rf"`((?:{FAMILIES})/[\w@/]+)`", PAGE))


def in_code() -> set[str]:
    """Metric names in the code's strings, with the parts that are filled in named as on the page."""
    found = {name for text in SOURCES.values() for name in re.findall(rf'"((?:{FAMILIES})/[\w{{}}@./]+)"', text)}
    found -= {name for name in found if name.startswith("eval/{")}
    found -= {"policy/{name}"}  # what a loss measures of the on-policy term, by a name that the loss gives
    named = {re.sub(r"^((?:guidance|policy)/\w+/){(?:name|term)}$", r"\1NAME", name) for name in found}
    named = {name.replace("policy/{name}/{term}", "policy/MEASURE/TERM") for name in named}
    parts = {f"time/{part}_s" for part in re.findall(r'watch\.measure\("(\w+)"\)', inspect.getsource(train))}
    return (named - {"time/{name}_s"}) | parts


def short_evaluation_names() -> set[str]:
    text = ROOT.joinpath("ampo_core/evaluation/results.py").read_text(encoding="utf-8")
    body = text[text.index("def metrics") : text.index("def predictions")]
    names = re.findall(r'f?"([\w@{}.]+)":', body)
    return {f"eval/SET/{re.sub(r'{.*}', 'K', name)}" for name in names}


def test_metrics_on_the_page_are_those_of_the_code():
    assert documented() == in_code() | short_evaluation_names() | {"eval/GROUP/avg"}
    assert len(documented()) > 35


@pytest.mark.parametrize(("module", "name"), POINTERS)
def test_pointers_hold(module, name):
    loaded = importlib.import_module(module.replace("/", "."))
    assert functools.reduce(getattr, name.split("."), loaded)


def test_every_function_of_a_step_has_its_hop():
    """What train_step, guide and update call from train.py and the room loop stands on the page."""
    source = "".join(inspect.getsource(function) for function in (train.train_step, train.guide, train.update))
    own = {
        name
        for name in re.findall(r"\b(\w+)\(", source)
        if getattr(getattr(train, name, None), "__module__", "").startswith(("ampo_core.train", "ampo_core.loop"))
    }
    hops = re.findall(r"parts\.(?:sampler|library|group_filter|questions)?\.?(\w+)\(", source)
    assert own
    shown = {part for _, name in POINTERS for part in name.split(".")}
    told = {"train_step", "check_parity", "fill_in", "with_reference", "train_sequences", "used", "Stopwatch"}
    reported = {name for name in own if name.endswith(("metrics", "report"))}
    assert (own | set(hops)) - told - reported - {"take_counts", "note", "after"} <= shown


def test_hops_are_in_the_order_of_the_code():
    step = inspect.getsource(train.train_step)
    order = ["take(", "sample(", "grade(", "guide(", "with_advantages(", ".trained(", "update(", "load_weights("]
    places = [step.index(name) for name in order]
    assert places == sorted(places)


def test_the_picture_is_drawn_anew_and_names_what_is_there():
    drawing = runpy.run_path(str(ROOT / "docs/draw_step.py"))
    assert ROOT.joinpath("docs/step.svg").read_text("utf-8") == drawing["picture"](), "run: make docs"
    hops = drawing["HOPS"]
    assert {kind for _, kinds, _ in hops for kind in kinds.split(", ") if kind} == set(KINDS) - {"task", "tracker"}
    told = {name for _, name in POINTERS}
    assert [code for *_, code in hops if code not in told and f"{code}(" not in inspect.getsource(train)] == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "task"])
def test_every_kind_of_plugin_is_in_the_table(kind):
    assert re.search(rf"\*\*{kind}\*\* plugins?", PAGE)


def test_files_of_a_run_are_those_that_are_written():
    text = "".join(SOURCES[ROOT / "ampo_core" / name] for name in ("run/folder.py", "run/checkpoint_store.py"))
    for name in ("config.yaml", "manifest.json", "metrics.jsonl", "samples.jsonl", "latest", "best.json", "done"):
        assert f'"{name}"' in text
        assert re.search(rf"[`/]{re.escape(name)}`", PAGE)
